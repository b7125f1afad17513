"""The requests of a proof: those whose traces are judged, and those that prepare and clean up."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeAlias

from spanproof.assertions.masking import learn_headers
from spanproof.assertions.triggers.context import Answer, TraceContext, TriggerFailed
from spanproof.assertions.triggers.request import Request
from spanproof.assertions.triggers.sending import Pause, open_trigger, read_repeat, send_repeatedly
from spanproof.assertions.triggers.targets import Targets
from spanproof.collector.store import Store
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings, Constant, NoValue

TRACE_ID_DIGITS: Final = 32

Begin: TypeAlias = Callable[[tuple[TraceContext, ...]], None]


@dataclass(frozen=True, slots=True)
class Repeated:
    """The responses of a repeated request, of which none alone is meant."""

    answers: tuple[Answer, ...]

    def read(self, part: str, keys: tuple[str | int, ...]) -> Constant | None:
        """Refuse to be read as one response."""
        raise NoValue(f"the request was sent {len(self.answers)} times: `response.{part}` is no one value")


@dataclass(frozen=True, slots=True)
class Sent:
    """What a ``when`` has sent: the trace of each request, and what each was answered with."""

    contexts: tuple[TraceContext, ...]
    answers: tuple[Answer, ...] = ()
    last_key: int = 0  # of the spans that were there before
    note: str | None = None

    def bind(self, when: s.When, bindings: Bindings) -> Bindings:
        """Return the bindings with the response, under its name too."""
        if not self.answers:
            return bindings
        response = self.answers[0] if when.option("repeat") is None else Repeated(self.answers)
        names = [None, *([when.name.text] if when.name else [])]
        return replace(bindings, responses={**bindings.responses, **dict.fromkeys(names, response)})


class Sender:
    """Sends the requests of one proof. Files are looked for in `folder`; `pause` waits, unless the run is cancelled.

    `begin` hears of the traces to be judged, before their requests are sent.
    """

    def __init__(
        self, store: Store, folder: Path, run_id: str, targets: Targets | None, pause: Pause, begin: Begin
    ) -> None:
        self._store = store
        self._folder = folder
        self._run_id = run_id
        self._targets = targets
        self._pause = pause
        self._begin = begin

    def send(self, when: s.When, bindings: Bindings, tell: Callable[[int, int], None], *, judged: bool = True) -> Sent:
        """Send what a ``when`` asks for; `tell` hears how many of how many requests were answered.

        With `judged` the store is told that our own spans, the parents of the traces' roots, will never come.
        """
        learn_headers(when, bindings)
        request = Request(when, bindings, self._folder, self._targets)
        if when.kind == "trace":
            return Sent((TraceContext(trace_id=_read_trace_id(request)),))
        repeat = read_repeat(when, bindings)
        with open_trigger(request, self._pause) as send:
            contexts = tuple(TraceContext(self._run_id) for _ in range(repeat.count if repeat else 1))
            if judged:
                expect_roots(self._store, contexts)
                self._begin(contexts)
            last_key = self._store.last_key
            if repeat is None:
                return Sent(contexts, (send(contexts[0]),), last_key)
            answers, note = send_repeatedly(send, contexts, repeat, self._pause, lambda done: tell(done, len(contexts)))
            return Sent(contexts, answers, last_key, note)

    def prepare(self, when: s.When, bindings: Bindings, time: str, tell: Callable[[int, int], None]) -> Bindings:
        """Send a request of ``before`` or ``after``. Raises TriggerFailed where the answer says that it has failed."""
        sent = self.send(when, bindings, tell, judged=False)
        for answer in sent.answers:
            if answer.has_failed:
                raise TriggerFailed(f"`{time}` was answered with {answer.status}", when.at)
        return sent.bind(when, bindings)


def expect_roots(store: Store, contexts: tuple[TraceContext, ...]) -> None:
    """Tell a store that our own spans, the parents of the traces' roots, will never come."""
    with store.lock, closing(store.cursor()) as connection:
        connection.execute(
            "INSERT INTO triggers SELECT unnest($traces)::UUID, unnest($spans)::UBIGINT",
            {"traces": [each.trace_id for each in contexts], "spans": [int(each.span_id, 16) for each in contexts]},
        )


def _read_trace_id(request: Request) -> str:
    text = request.target(0)
    if len(text) != TRACE_ID_DIGITS or not all(digit in "0123456789abcdefABCDEF" for digit in text):
        raise NoValue(f"`{text}` is not a trace id: {TRACE_ID_DIGITS} hexadecimal digits")
    return text.lower()
