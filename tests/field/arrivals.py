"""What really happened: the attempts that the fault server saw, and the connections that were refused."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from enum import Enum


class Outcome(Enum):
    """How an attempt ended for its caller."""

    OK = "ok"
    ANSWER = "answer"  # a failure that no repetition would mend: 404, 409
    REDIRECT = "redirect"
    RETRYABLE = "retryable"  # 429, 5xx, a refused or reset connection, a truncated body
    CUT = "cut"  # the caller gave up before a response


@dataclass(slots=True, eq=False)
class Attempt:
    """One arrival, or one refused connection. Times are of the monotonic clock; `ask` is the caller's own number."""

    service: str
    ask: str
    path: str
    fault: str
    start_ns: int
    end_ns: int = 0
    outcome: Outcome | None = None

    def close(self, outcome: Outcome) -> None:
        """Record how it ended; only the first end counts."""
        if self.outcome is None:
            self.end_ns, self.outcome = time.monotonic_ns(), outcome

    @property
    def duration_ns(self) -> int:
        return self.end_ns - self.start_ns


@dataclass(slots=True)
class Request:
    """A request that the runner sent to web."""

    trace_id: str
    start_ns: int
    end_ns: int = 0
    status: int = 0


@dataclass(slots=True)
class RunLog:
    """The log of one run of a plan: what the runner asked of web, and what web asked of the fault server."""

    requests: list[Request] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    unfinished: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def open(self, service: str, ask: str, path: str, fault: str) -> Attempt:
        attempt = Attempt(service, ask, path, fault, time.monotonic_ns())
        with self._lock:
            self.attempts.append(attempt)
        return attempt

    def list_attempts(self, service: str) -> list[Attempt]:
        with self._lock:
            return sorted((each for each in self.attempts if each.service == service), key=lambda each: each.start_ns)


def classify_status(status: int) -> Outcome:
    if status in (408, 425, 429) or status >= 500:
        return Outcome.RETRYABLE
    if status >= 400:
        return Outcome.ANSWER
    return Outcome.REDIRECT if status >= 300 else Outcome.OK
