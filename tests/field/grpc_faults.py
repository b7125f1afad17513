"""gRPC server that fails as planned: a fault's status is that of HTTP, translated."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import grpc

from spanproof.tests.field.arrivals import Outcome, RunLog
from spanproof.tests.field.plans import HANG_S, SLOW_S
from spanproof.tests.field.server_spans import ServerSpans, end_grpc

CODES: Final = {
    "200": grpc.StatusCode.OK,
    "404": grpc.StatusCode.NOT_FOUND,
    "409": grpc.StatusCode.ALREADY_EXISTS,
    "429": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "503": grpc.StatusCode.UNAVAILABLE,
}
ANSWERS: Final = (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.ALREADY_EXISTS)


class GrpcFaults(grpc.GenericRpcHandler):  # type: ignore[misc] # grpc has no types
    """One service of one run, on an address of its own; the counterpart of `FaultListener`."""

    def __init__(
        self, log: RunLog, service: str, faults: Mapping[str, tuple[str, ...]], host: str, spans: ServerSpans | None
    ) -> None:
        self._log, self._service, self._faults, self._spans = log, service, faults, spans
        self._arrived: dict[str, int] = defaultdict(int)
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(8), handlers=[self])
        self.url = f"http://{host}:{self._server.add_insecure_port(f'{host}:0')}"
        self._server.start()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        headers = dict(details.invocation_metadata)
        return grpc.unary_unary_rpc_method_handler(
            lambda _, context: self._answer(details.method, headers, context),
            request_deserializer=lambda raw: raw,
            response_serializer=lambda raw: raw,
        )

    def _answer(self, method: str, headers: Mapping[str, str], context: grpc.ServicerContext) -> bytes:
        item = headers.get("x-field-item", "1")
        with self._lock:
            planned = self._faults[item]
            fault = planned[min(self._arrived[item], len(planned) - 1)]
            self._arrived[item] += 1
            self._log.unfinished += 1
        attempt = self._log.open(self._service, headers.get("x-field-ask", ""), item, fault)
        span = self._spans and self._spans.start_grpc(self._service, method, headers)
        code = CODES.get(fault[-3:], grpc.StatusCode.OK)
        try:
            if fault == "hang":
                context.add_callback(lambda: attempt.close(Outcome.CUT))
                time.sleep(HANG_S)  # a busy handler, which does not notice that its caller has gone
            elif fault.startswith("slow"):
                time.sleep(SLOW_S)
            if code is grpc.StatusCode.OK:
                attempt.close(Outcome.OK)
                return b""
            attempt.close(Outcome.ANSWER if code in ANSWERS else Outcome.RETRYABLE)
            context.abort(code, "as planned")  # sends no headers first, so that clients may retry
            raise AssertionError("abort raises")
        finally:
            end_grpc(span, code.value[0])
            with self._lock:
                self._log.unfinished -= 1

    def close(self) -> None:
        self._server.stop(None).wait()
