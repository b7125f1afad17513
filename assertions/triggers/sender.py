"""Sends what a ``when`` asks for: once, or many times at a rate."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

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
PROGRESS_INTERVAL_S: Final = 0.1  # and how often it is looked whether the run was cancelled
RATE_TOLERANCE_S: Final = 0.25  # and a tenth of the time it should have taken: so much later is worth saying

Pause = Callable[[float], None]  # waits for seconds; raises TriggerFailed where the run was cancelled meanwhile
ReportProgress = Callable[[int], None]  # takes how many requests were answered


@dataclass(frozen=True, slots=True)
class Repeat:
    """How often to send a request, and how many times a second."""

    count: int
    rate: float

    @property
    def duration_s(self) -> float:
        """How long it takes from the first to the last."""
        return (self.count - 1) / self.rate


def read_repeat(when: s.When, bindings: Bindings) -> Repeat | None:
    """Return what ``repeat N at R/s`` says, or None where a request is sent once."""
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
    """Open what carries out a request; what it yields sends it once, and raises what `pause` does.

    It is sent by a thread of its own, which is left to itself where the run is cancelled meanwhile: whoever cancels
    does not wait for an answer.
    """
    with _open_protocol(request) as send:

        def send_aside(context: TraceContext) -> TriggerResponse:
            future: Future[TriggerResponse] = Future()
            threading.Thread(
                target=_store_result, args=(future, send, context), name="spanproof-send", daemon=True
            ).start()
            while not wait((future,), PROGRESS_INTERVAL_S).done:
                pause(0)
            return future.result()

        yield send_aside


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
    from spanproof.assertions.triggers.grpc import open_grpc  # heavy, and seldom needed

    with open_grpc(request) as send:
        yield send


def send_repeatedly(
    send: SendRequest, contexts: Sequence[TraceContext], repeat: Repeat, pause: Pause, report_progress: ReportProgress
) -> tuple[tuple[TriggerResponse, ...], str | None]:
    """Send once for each context, at a rate, whether or not earlier requests were answered; so many at once at most.

    Returns the answers in order, and what to say of the rate where it was not kept. Raises TriggerFailed where one
    could not be sent.
    """
    total = len(contexts)
    begun = [0.0] * total

    def send_one(place: int) -> TriggerResponse:
        begun[place] = time.monotonic()
        return send(contexts[place])

    started = told = time.monotonic()
    futures: list[Future[TriggerResponse]] = []
    pool = ThreadPoolExecutor(min(MAX_CONCURRENT_REQUESTS, total), thread_name_prefix="spanproof-repeat")
    try:
        for place in range(total):
            ahead = started + place / repeat.rate - time.monotonic()
            if ahead > 0:
                pause(ahead)
            futures.append(pool.submit(send_one, place))
            if time.monotonic() - told >= PROGRESS_INTERVAL_S:
                told = time.monotonic()
                _raise_first_error(futures)
                report_progress(sum(each.done() for each in futures))
        waiting = set(futures)
        while waiting:
            _, waiting = wait(waiting, PROGRESS_INTERVAL_S, FIRST_EXCEPTION)
            _raise_first_error(futures)
            report_progress(total - len(waiting))
            pause(0)
    finally:
        pool.shutdown(cancel_futures=True)
    took = max(begun) - started
    kept = took <= repeat.duration_s * 1.1 + RATE_TOLERANCE_S
    late = (
        None
        if kept
        else f"{total} requests were begun at {(total - 1) / took:.3g}/s, not at {Decimal(repeat.rate):g}/s"
    )
    return tuple(each.result() for each in futures), late


def _raise_first_error(futures: Sequence[Future[TriggerResponse]]) -> None:
    for place, each in enumerate(futures):
        error = each.exception() if each.done() and not each.cancelled() else None
        if isinstance(error, TriggerFailed):
            raise TriggerFailed(f"request {place + 1}: {error}", error.at)
        if error is not None:
            raise error
