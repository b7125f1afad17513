"""Sender of the requests of a ``when``: once, or repeatedly at a rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from decimal import Decimal
from typing import Final

from msgspec import Struct

from spanproof.assertions.triggers.command import open_command
from spanproof.assertions.triggers.context import TraceContext, TriggerFailed
from spanproof.assertions.triggers.http import open_http
from spanproof.assertions.triggers.message import open_broker
from spanproof.assertions.triggers.request import TriggerRequest
from spanproof.assertions.triggers.responses import SendRequest, TriggerResponse
from spanproof.query_lang.check.constants import Bindings, MissingValue, evaluate, to_decimal
from spanproof.query_lang.check.requests import MAX_REQUESTS
from spanproof.query_lang.syntax import nodes as s

MAX_CONCURRENT_REQUESTS: Final = 128
PROGRESS_INTERVAL_S: Final = 0.1  # also the interval at which cancellation is checked
RATE_TOLERANCE_S: Final = 0.25  # a delay above this plus a tenth of the planned duration is reported

Pause = Callable[[float], None]  # waits for seconds; raises TriggerFailed if the run is cancelled meanwhile
ReportProgress = Callable[[int], None]  # takes the number of answered requests


class Repeat(Struct, frozen=True):
    """The number of requests to send, and their rate per second."""

    count: int
    rate: float

    @property
    def duration_s(self) -> float:
        """Time from the first to the last request."""
        return (self.count - 1) / self.rate


def read_repeat(when: s.When, bindings: Bindings) -> Repeat | None:
    """Return the values of ``repeat N at R/s``, or None for a request that is sent once."""
    option = when.option("repeat")
    if option is None:
        return None
    count = to_decimal(evaluate(option.value, bindings))  # type: ignore[arg-type]  # an expression, not JSON
    rate = to_decimal(evaluate(option.rate, bindings))  # type: ignore[arg-type]  # `repeat` has one
    if count != int(count) or not 1 <= count <= MAX_REQUESTS:
        raise MissingValue(f"`repeat` takes a whole number from 1 to {MAX_REQUESTS}, not {count}")
    if rate <= 0:
        raise MissingValue(f"`repeat` cannot send at {rate}/s")
    return Repeat(int(count), float(rate))


@contextmanager
def open_trigger(request: TriggerRequest, pause: Pause) -> Iterator[SendRequest]:
    """Yield a function that sends a request once. It raises the errors of `pause`.

    A separate thread sends the request. If the run is cancelled meanwhile, the thread is abandoned, because
    cancelling must not wait for a response.
    """
    with _open_protocol(request) as send:

        def send_in_thread(context: TraceContext) -> TriggerResponse:
            future: Future[TriggerResponse] = Future()
            threading.Thread(
                target=_store_result, args=(future, send, context), name="spanproof-send", daemon=True
            ).start()
            while not wait((future,), PROGRESS_INTERVAL_S).done:
                pause(0)
            return future.result()

        yield send_in_thread


def _store_result(future: Future[TriggerResponse], send: SendRequest, context: TraceContext) -> None:
    try:
        future.set_result(send(context))
    except BaseException as error:
        future.set_exception(error)


def _open_protocol(request: TriggerRequest) -> AbstractContextManager[SendRequest]:
    match request.when.kind:
        case "run":
            return open_command(request)
        case "publish":
            return open_broker(request)
        case "grpc":
            return _open_grpc(request)
        case _:
            return open_http(request)


@contextmanager
def _open_grpc(request: TriggerRequest) -> Iterator[SendRequest]:
    from spanproof.assertions.triggers.grpc import open_grpc  # slow to import, and rarely needed

    with open_grpc(request) as send:
        yield send


def send_repeatedly(
    send: SendRequest, contexts: Sequence[TraceContext], repeat: Repeat, pause: Pause, report_progress: ReportProgress
) -> tuple[tuple[TriggerResponse, ...], str | None]:
    """Send one request per context at a rate, without waiting for earlier responses.

    At most MAX_CONCURRENT_REQUESTS run at once. Return the responses in order, and a note if the rate was not kept.
    Raises TriggerFailed if a request could not be sent.
    """
    total = len(contexts)
    start_times = [0.0] * total

    def send_one(index: int) -> TriggerResponse:
        start_times[index] = time.monotonic()
        return send(contexts[index])

    started = last_report = time.monotonic()
    futures: list[Future[TriggerResponse]] = []
    pool = ThreadPoolExecutor(min(MAX_CONCURRENT_REQUESTS, total), thread_name_prefix="spanproof-repeat")
    try:
        for index in range(total):
            delay = started + index / repeat.rate - time.monotonic()
            if delay > 0:
                pause(delay)
            futures.append(pool.submit(send_one, index))
            if time.monotonic() - last_report >= PROGRESS_INTERVAL_S:
                last_report = time.monotonic()
                _raise_first_error(futures)
                report_progress(sum(each.done() for each in futures))
        pending = set(futures)
        while pending:
            _, pending = wait(pending, PROGRESS_INTERVAL_S, FIRST_EXCEPTION)
            _raise_first_error(futures)
            report_progress(total - len(pending))
            pause(0)
    finally:
        pool.shutdown(cancel_futures=True)
    duration = max(start_times) - started
    is_rate_kept = duration <= repeat.duration_s * 1.1 + RATE_TOLERANCE_S
    note = (
        None
        if is_rate_kept
        else f"{total} requests were started at {(total - 1) / duration:.3g}/s, not at {Decimal(repeat.rate):g}/s"
    )
    return tuple(each.result() for each in futures), note


def _raise_first_error(futures: Sequence[Future[TriggerResponse]]) -> None:
    for index, each in enumerate(futures):
        error = each.exception() if each.done() and not each.cancelled() else None
        if isinstance(error, TriggerFailed):
            raise TriggerFailed(f"request {index + 1}: {error}", error.at)
        if error is not None:
            raise error
