"""History of runs: a writer, and queries over all runs."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Final

from spanproof.assertions.findings.verdict import Outcome, find_worst_outcome
from spanproof.assertions.reports.documents import ClaimKind, ProofDocument, RunDocument, describe_proof
from spanproof.assertions.run.events import ProofFinished, RunEvent, RunFinished

if TYPE_CHECKING:
    import duckdb
    from pydantic import TypeAdapter

    from spanproof.collector.storage.interface import SpanStore

INCOMPLETE: Final = "incomplete"


@cache
def _make_proof_adapter() -> TypeAdapter[ProofDocument]:
    from pydantic import TypeAdapter  # takes 0.1 s, and a run in memory does not need it

    return TypeAdapter(ProofDocument)


class HistoryWriter:
    """Builder of the document of a run; it also writes the document to a store as events arrive, if there is one."""

    def __init__(self, store: SpanStore | None, run_id: str, origin: str) -> None:
        self._store = store
        self.document = RunDocument(run_id, origin, time.time_ns(), None, None, ())
        self._write(
            "INSERT INTO runs VALUES ($id, $origin, $started, NULL, NULL)",
            {"id": run_id, "origin": origin, "started": self.document.started_ns},
        )

    def __call__(self, event: RunEvent) -> None:
        """Process an event."""
        match event:
            case ProofFinished():
                self._add_proof(describe_proof(event), time.time_ns() - event.duration_ns)
            case RunFinished():
                self.finish(find_worst_outcome(list(event.outcomes)))

    def finish(self, outcome: Outcome) -> None:
        """Record the end and the outcome of the run."""
        self.document = replace(self.document, ended_ns=time.time_ns(), outcome=outcome)
        self._write(
            "UPDATE runs SET ended_ns = $ended, outcome = $outcome WHERE run_id = $id",
            {"ended": self.document.ended_ns, "outcome": str(outcome), "id": self.document.id},
        )

    def _add_proof(self, proof: ProofDocument, started_ns: int) -> None:
        position = len(self.document.proofs)
        self.document = replace(self.document, proofs=(*self.document.proofs, proof))
        if self._store is None:
            return
        self._write(
            "INSERT INTO run_proofs"
            " VALUES ($run, $position, $started, $name, $path, $outcome, $duration, $failure_kinds, $document)",
            {
                "run": self.document.id,
                "position": position,
                "started": started_ns,
                "name": proof.name,
                "path": proof.path,
                "outcome": str(proof.outcome),
                "duration": proof.duration_ns,
                "failure_kinds": _list_failure_kinds(proof),
                "document": _make_proof_adapter().dump_json(proof).decode(),
            },
        )

    def _write(self, sql: str, parameters: dict[str, object]) -> None:
        if self._store is None:
            return
        with self._store.lock, closing(self._store.cursor()) as connection:
            connection.execute(sql, parameters)


def _list_failure_kinds(proof: ProofDocument) -> list[str]:
    """Return the distinct kinds of the claims that did not pass."""
    kinds = [
        INCOMPLETE if each.outcome is Outcome.INCONCLUSIVE else str(each.kind)
        for each in proof.verdicts
        if each.outcome is not Outcome.PASS
    ]
    return list(dict.fromkeys(kinds or ([str(ClaimKind.OTHER)] if proof.error else [])))


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run, and the number of its proofs per outcome."""

    id: str
    origin: str
    started_ns: int
    ended_ns: int | None
    outcome: Outcome | None
    proofs: dict[str, int]


@dataclass(frozen=True, slots=True)
class ProofHistory:
    """The results of a proof over time.

    It is flaky if it changed between pass and fail more than once, or passed only at a later try.
    """

    name: str
    path: str
    runs: int
    outcomes: dict[str, int]
    last_outcome: Outcome
    last_started_ns: int
    failing_since_ns: int | None
    flips: int
    flaky: bool
    median_ns: int
    slowest_ns: int


@dataclass(frozen=True, slots=True)
class FailureCount:
    """Number of proofs with failed claims of a ``kind``, in the time step that starts at ``at_ns``."""

    at_ns: int
    kind: str
    n: int


def read_run(connection: duckdb.DuckDBPyConnection, run_id: str) -> RunDocument | None:
    """Return the run with this id, or None."""
    row = connection.execute(
        "SELECT origin, started_ns, ended_ns, outcome FROM runs WHERE run_id = ?", [run_id]
    ).fetchone()
    if row is None:
        return None
    origin, started_ns, ended_ns, outcome = row
    documents = connection.execute(
        "SELECT document FROM run_proofs WHERE run_id = ? ORDER BY position", [run_id]
    ).fetchall()
    proofs = tuple(_make_proof_adapter().validate_json(document) for (document,) in documents)
    return RunDocument(run_id, origin, started_ns, ended_ns, Outcome(outcome) if outcome else None, proofs)


def list_runs(
    connection: duckdb.DuckDBPyConnection, limit: int, before: tuple[int, str] | None, outcome: Outcome | None
) -> list[RunSummary]:
    """Return runs, the newest first; with `before`, only those before this start and id."""
    started_ns, run_id = before or (2**63 - 1, "")
    rows = connection.execute(
        "SELECT r.*, (SELECT map_from_entries(list((p.outcome, p.n))) FROM ("
        " SELECT outcome, count(*) AS n FROM run_proofs WHERE run_id = r.run_id GROUP BY outcome ORDER BY outcome) p)"
        " FROM runs r WHERE (started_ns, run_id) < ($started, $id) AND ($outcome IS NULL OR outcome = $outcome)"
        " ORDER BY started_ns DESC, run_id DESC LIMIT $limit",
        {"started": started_ns, "id": run_id, "outcome": outcome and str(outcome), "limit": limit},
    ).fetchall()
    return [
        RunSummary(id_, origin, started, ended, Outcome(result) if result else None, dict(proofs or {}))
        for id_, origin, started, ended, result, proofs in rows
    ]


def list_proof_histories(connection: duckdb.DuckDBPyConnection, since_ns: int) -> list[ProofHistory]:
    """Return the history of each proof that ran since `since_ns`, the slowest first."""
    rows = connection.execute(
        "WITH results AS ("
        " SELECT *, lag(outcome) OVER same_proof AS previous FROM run_proofs WHERE started_ns >= $since"
        " WINDOW same_proof AS (PARTITION BY path, name ORDER BY started_ns, run_id)),"
        " last_pass AS (SELECT path, name, max(started_ns) AS at FROM results WHERE outcome = 'pass' GROUP BY ALL)"
        " SELECT s.name, s.path, count(*), map_from_entries(list(DISTINCT (s.outcome, o.n))),"
        " arg_max(s.outcome, s.started_ns), max(s.started_ns),"
        " min(s.started_ns) FILTER (s.outcome <> 'pass' AND s.started_ns > coalesce(l.at, 0)),"
        " count(*) FILTER (s.outcome || '<' || s.previous IN ('pass<fail', 'fail<pass')),"
        " quantile_disc(s.duration_ns, 0.5), max(s.duration_ns),"
        " count(*) FILTER (s.document ->> '$.flaky' = 'true')"
        " FROM results s LEFT JOIN last_pass l USING (path, name)"
        " JOIN (SELECT path, name, outcome, count(*) AS n FROM results GROUP BY ALL) o USING (path, name, outcome)"
        " GROUP BY s.name, s.path ORDER BY max(s.duration_ns) DESC, s.path, s.name",
        {"since": since_ns},
    ).fetchall()
    return [
        ProofHistory(
            name,
            path,
            runs,
            dict(outcomes),
            Outcome(last),
            at,
            since,
            flips,
            flips > 1 or flaky_runs > 0,
            median,
            slowest,
        )
        for name, path, runs, outcomes, last, at, since, flips, median, slowest, flaky_runs in rows
    ]


def count_failures(connection: duckdb.DuckDBPyConnection, since_ns: int, step_ns: int) -> list[FailureCount]:
    """Count failed proofs per time step and kind of claim."""
    rows = connection.execute(
        "SELECT started_ns // $step * $step AS at_ns, kind, count(*)"
        " FROM (SELECT started_ns, unnest(failure_kinds) AS kind FROM run_proofs WHERE started_ns >= $since)"
        " GROUP BY ALL ORDER BY ALL",
        {"since": since_ns, "step": step_ns},
    ).fetchall()
    return [FailureCount(*row) for row in rows]
