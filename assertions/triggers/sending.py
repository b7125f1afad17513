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
from spanproof.assertions.triggers.context import Answer, Send, TraceContext, TriggerFailed
from spanproof.assertions.triggers.http import open_http
from spanproof.assertions.triggers.message import open_broker
from spanproof.assertions.triggers.request import Request
from spanproof.query_lang import syntax as s
from spanproof.query_lang.check_requests import MOST_REQUESTS
from spanproof.query_lang.constants import Bindings, NoValue, evaluate, number

AT_ONCE: Final = 128
TELL_EVERY_S: Final = 0.1  # and how often it is looked whether the run was cancelled
LATE_S: Final = 0.25  # and a tenth of the time it should have taken: so much later is worth saying

Pause = Callable[[float], None]  # waits for seconds; raises TriggerFailed where the run was cancelled meanwhile
Tell = Callable[[int], None]  # takes how many requests were answered


@dataclass(frozen=True, slots=True)
class Repeat:
    """How often to send a request, and how many times a second."""

    count: int
    rate: float

    @property
    def span_s(self) -> float:
        """How long it takes from the first to the last."""
        return (self.count - 1) / self.rate


def read_repeat(when: s.When, bindings: Bindings) -> Repeat | None:
    """Return what ``repeat N at R/s`` says, or None where a request is sent once."""
    option = when.option("repeat")
    if option is None:
        return None
    count = number(evaluate(option.value, bindings))  # type: ignore[arg-type]  # an expression, not JSON
    rate = number(evaluate(option.rate, bindings))  # type: ignore[arg-type]  # `repeat` has one
    if count != int(count) or not 1 <= count <= MOST_REQUESTS:
        raise NoValue(f"`repeat` takes a whole number from 1 to {MOST_REQUESTS}, not {count}")
    if rate <= 0:
        raise NoValue(f"`repeat` cannot send at {rate}/s")
    return Repeat(int(count), float(rate))


@contextmanager
def open_trigger(request: Request, pause: Pause) -> Iterator[Send]:
    """Open what carries out a request; what it yields sends it once, and raises what `pause` does.

    It is sent by a thread of its own, which is left to itself where the run is cancelled meanwhile: whoever cancels
    does not wait for an answer.
    """
    with _open(request) as send:

        def send_aside(context: TraceContext) -> Answer:
            future: Future[Answer] = Future()
            threading.Thread(target=_keep, args=(future, send, context), name="spanproof-send", daemon=True).start()
            while not wait((future,), TELL_EVERY_S).done:
                pause(0)
            return future.result()

        yield send_aside


def _keep(future: Future[Answer], send: Send, context: TraceContext) -> None:
    try:
        future.set_result(send(context))
    except BaseException as error:
        future.set_exception(error)


def _open(request: Request) -> AbstractContextManager[Send]:
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
def _open_grpc(request: Request) -> Iterator[Send]:
    from spanproof.assertions.triggers.grpc import open_grpc  # heavy, and seldom needed

    with open_grpc(request) as send:
        yield send


def send_repeatedly(
    send: Send, contexts: Sequence[TraceContext], repeat: Repeat, pause: Pause, tell: Tell
) -> tuple[tuple[Answer, ...], str | None]:
    """Send once for each context, at a rate, whether or not earlier requests were answered; so many at once at most.

    Returns the answers in order, and what to say of the rate where it was not kept. Raises TriggerFailed where one
    could not be sent.
    """
    total = len(contexts)
    begun = [0.0] * total

    def send_one(place: int) -> Answer:
        begun[place] = time.monotonic()
        return send(contexts[place])

    started = told = time.monotonic()
    futures: list[Future[Answer]] = []
    pool = ThreadPoolExecutor(min(AT_ONCE, total), thread_name_prefix="spanproof-repeat")
    try:
        for place in range(total):
            ahead = started + place / repeat.rate - time.monotonic()
            if ahead > 0:
                pause(ahead)
            futures.append(pool.submit(send_one, place))
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                _raise_first(futures)
                tell(sum(each.done() for each in futures))
        waiting = set(futures)
        while waiting:
            _, waiting = wait(waiting, TELL_EVERY_S, FIRST_EXCEPTION)
            _raise_first(futures)
            tell(total - len(waiting))
            pause(0)
    finally:
        pool.shutdown(cancel_futures=True)
    took = max(begun) - started
    kept = took <= repeat.span_s * 1.1 + LATE_S
    late = (
        None
        if kept
        else f"{total} requests were begun at {(total - 1) / took:.3g}/s, not at {Decimal(repeat.rate):g}/s"
    )
    return tuple(each.result() for each in futures), late


def _raise_first(futures: Sequence[Future[Answer]]) -> None:
    for place, each in enumerate(futures):
        error = each.exception() if each.done() and not each.cancelled() else None
        if isinstance(error, TriggerFailed):
            raise TriggerFailed(f"request {place + 1}: {error}", error.at)
        if error is not None:
            raise error
