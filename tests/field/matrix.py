"""Tables of the comparison: verdicts by client and plan, and why verdicts were inconclusive."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from spanproof.tests.field.comparison import WRONG, Compared, Mark

LEGEND = "n: right; i: inconclusive; k: known limits; P!: wrong passes; F!: wrong fails; E!: errors; -: not run"
SHORT = {
    Mark.RIGHT: "",
    Mark.INCONCLUSIVE: "i",
    Mark.LIMIT: "k",
    Mark.WRONG_PASS: "P!",
    Mark.WRONG_FAIL: "F!",
    Mark.ERROR: "E!",
}


def format_matrix(compared: Sequence[Compared], not_run: Iterable[str] = ()) -> str:
    """Return a row for each plan and callee, a column for each client: right verdicts, then the others by mark."""
    clients = list(dict.fromkeys(each.client for each in compared))
    cells: dict[tuple[str, bool], dict[str, Counter[Mark]]] = defaultdict(lambda: defaultdict(Counter))
    for each in compared:
        cells[each.plan, each.traced][each.client][each.mark] += 1
    lines = [f"{number:>2} {client}" for number, client in enumerate(clients, 1)]
    lines += ["", f"{'plan':<16}{'callee':<10}" + "".join(f"{number:>9}" for number in range(1, len(clients) + 1))]
    for (plan, traced), row in cells.items():
        shown = "".join(f"{_format_cell(row.get(client)):>9}" for client in clients)
        lines.append(f"{plan:<16}{'traced' if traced else 'untraced':<10}{shown}")
    lines += ["", LEGEND]
    totals = Counter(each.mark for each in compared)
    lines += ["", "total: " + ", ".join(f"{totals[mark]} {mark.value}" for mark in Mark)]
    return "\n".join([*lines, *sorted(set(not_run))])


def _format_cell(marks: Counter[Mark] | None) -> str:
    if marks is None:
        return "-"
    return str(marks[Mark.RIGHT]) + "".join(f" {marks[mark]}{SHORT[mark]}" for mark in list(Mark)[1:] if marks[mark])


def format_inconclusive(compared: Sequence[Compared]) -> str:
    """Return the inconclusive verdicts by client, plan and reason, with the kinds of claims."""
    groups: dict[tuple[str, str, str, str], Counter[str]] = defaultdict(Counter)
    for each in compared:
        if each.mark is Mark.INCONCLUSIVE:
            callee = "traced" if each.traced else "untraced"
            groups[each.client, each.plan, callee, simplify_reason(each.reason)][each.claim.kind] += 1
    return "\n".join(
        f"{client} / {plan} / {callee}: {', '.join(f'{n} {kind}' for kind, n in sorted(kinds.items()))}\n    {reason}"
        for (client, plan, callee, reason), kinds in sorted(groups.items())
    )


def simplify_reason(reason: str) -> str:
    """Return the first sentence of a reason without what differs from run to run."""
    first = re.split(r"(?<=[a-z`)])[;.] |\n", reason)[0]
    return re.sub(r"127\.0\.0\.\d+:\d+", "ADDRESS", re.sub(r"\b[\d.]+ ?(ms|s|µs)\b", "…", first))


def format_wrong(compared: Sequence[Compared]) -> Iterator[str]:
    """Yield the verdicts that contradict the truth."""
    for each in compared:
        if each.mark in WRONG:
            callee = "traced" if each.traced else "untraced"
            yield (
                f"{each.mark.value}: {each.client} / {each.plan} / {callee}: {each.claim.text}\n"
                f"    {each.claim.truth.value} by the log; {each.verdict}: {each.reason}\n"
                f"    trace {', '.join(each.trace_ids)}"
            )
