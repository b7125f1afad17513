"""The requests of a proof: requests with judged traces, and requests that prepare or clean up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeAlias

from msgspec import Struct
from msgspec.structs import replace

from spanproof.assertions.run.secret_masking import register_header_secrets
from spanproof.assertions.triggers.allowed_targets import AllowedTargets
from spanproof.assertions.triggers.context import TraceContext, TriggerFailed
from spanproof.assertions.triggers.request import TriggerRequest
from spanproof.assertions.triggers.responses import RepeatedResponses, TriggerResponse
from spanproof.assertions.triggers.sender import Pause, open_trigger, read_repeat, send_repeatedly
from spanproof.collector.storage.interface import SpanStore
from spanproof.query_lang.check.constants import Bindings, MissingValue
from spanproof.query_lang.syntax import nodes as s

TRACE_ID_DIGITS: Final = 32

RegisterTraces: TypeAlias = Callable[[tuple[TraceContext, ...]], None]


class SentRequests(Struct, frozen=True):
    """The requests of a ``when``: the trace context and the response of each."""

    contexts: tuple[TraceContext, ...]
    responses: tuple[TriggerResponse, ...] = ()
    last_span_key: int = 0  # the last span stored before the requests
    note: str | None = None

    def bind_response(self, when: s.When, bindings: Bindings) -> Bindings:
        """Return the bindings with the response, also under its name if it has one."""
        if not self.responses:
            return bindings
        response = self.responses[0] if when.option("repeat") is None else RepeatedResponses(self.responses)
        names = [None, *([when.name.text] if when.name else [])]
        return replace(bindings, responses={**bindings.responses, **dict.fromkeys(names, response)})


class RequestSender:
    """Sender of the requests of one proof. Files are relative to `folder`; `pause` waits unless the run is cancelled.

    It calls `register_traces` with the contexts of judged traces before it sends their requests.
    """

    def __init__(
        self,
        store: SpanStore,
        folder: Path,
        run_id: str,
        allowed_targets: AllowedTargets | None,
        pause: Pause,
        register_traces: RegisterTraces,
    ) -> None:
        self._store = store
        self._folder = folder
        self._run_id = run_id
        self._allowed_targets = allowed_targets
        self._pause = pause
        self._register_traces = register_traces

    def send(
        self, when: s.When, bindings: Bindings, report_progress: Callable[[int, int], None], *, judged: bool = True
    ) -> SentRequests:
        """Send the requests of a ``when``. Call `report_progress` with the number of answered and of all requests.

        With `judged`, register our own spans in the store: they are the parents of the root spans and never arrive.
        """
        register_header_secrets(when, bindings)
        request = TriggerRequest(when, bindings, self._folder, self._allowed_targets)
        if when.kind == "trace":
            return SentRequests((TraceContext(trace_id=_read_trace_id(request)),))
        repeat = read_repeat(when, bindings)
        with open_trigger(request, self._pause) as send:
            contexts = tuple(TraceContext(self._run_id) for _ in range(repeat.count if repeat else 1))
            if judged:
                register_trigger_spans(self._store, contexts)
                self._register_traces(contexts)
            last_key = self._store.last_span_key
            if repeat is None:
                return SentRequests(contexts, (send(contexts[0]),), last_key)
            responses, note = send_repeatedly(
                send, contexts, repeat, self._pause, lambda done: report_progress(done, len(contexts))
            )
            return SentRequests(contexts, responses, last_key, note)

    def send_hook(
        self, when: s.When, bindings: Bindings, phase: str, report_progress: Callable[[int, int], None]
    ) -> Bindings:
        """Send a request of ``before`` or ``after``. Raises TriggerFailed if the response reports a failure."""
        sent = self.send(when, bindings, report_progress, judged=False)
        for response in sent.responses:
            if response.has_failed:
                raise TriggerFailed(f"`{phase}` was answered with {response.status}", when.at)
        return sent.bind_response(when, bindings)


def register_trigger_spans(store: SpanStore, contexts: tuple[TraceContext, ...]) -> None:
    """Register our own spans in a store: they are the parents of the root spans and never arrive."""
    with store.lock, closing(store.cursor()) as connection:
        connection.execute(
            "INSERT INTO triggers SELECT unnest($traces)::UUID, unnest($spans)::UBIGINT",
            {"traces": [each.trace_id for each in contexts], "spans": [int(each.span_id, 16) for each in contexts]},
        )


def _read_trace_id(request: TriggerRequest) -> str:
    text = request.read_target(0)
    if len(text) != TRACE_ID_DIGITS or not all(digit in "0123456789abcdefABCDEF" for digit in text):
        raise MissingValue(f"`{text}` is not a trace id: {TRACE_ID_DIGITS} hexadecimal digits")
    return text.lower()
