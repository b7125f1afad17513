"""Report as JUnit XML in the form that Jenkins and GitLab read: a suite per file, a case per proof."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from xml.etree import ElementTree

from spanproof.assertions.findings.verdict import Outcome
from spanproof.assertions.reports.documents import ProofDocument, RunDocument, TryDocument, VerdictDocument
from spanproof.assertions.reports.outcome_text import format_rerun_command, list_further_groups, rank_not_passed

# characters that XML 1.0 does not allow
_INVALID_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_OUTCOME_ELEMENTS = {Outcome.FAIL: "failure", Outcome.ERROR: "error", Outcome.INCONCLUSIVE: "skipped"}


def render_junit(run: RunDocument) -> bytes:
    """Render a run. An inconclusive proof is a skipped case whose message gives the reason.

    Earlier tries are written as Surefire writes them: ``flakyFailure`` if the proof passed finally, else
    ``rerunFailure``.
    """
    root = ElementTree.Element("testsuites", {"name": "spanproof", **_make_counts(run.proofs)})
    del root.attrib["skipped"]  # the schema allows it only for suites
    at = datetime.fromtimestamp(run.started_ns / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    by_path = sorted(run.proofs, key=lambda proof: proof.path)
    for path, group in groupby(by_path, key=lambda proof: proof.path):
        proofs = list(group)
        suite = ElementTree.SubElement(
            root, "testsuite", {"name": _replace_invalid_xml(path), "timestamp": at, **_make_counts(proofs)}
        )
        for proof in proofs:
            _add_case(suite, proof)
    ElementTree.indent(root)
    return bytes(ElementTree.tostring(root, "utf-8", xml_declaration=True))


def _add_case(suite: ElementTree.Element, proof: ProofDocument) -> None:
    case = ElementTree.SubElement(
        suite,
        "testcase",
        name=_replace_invalid_xml(proof.name),
        classname=_replace_invalid_xml(proof.path.removesuffix(".proof").replace("/", ".")),
        file=_replace_invalid_xml(proof.path),
        time=_format_seconds(proof.duration_ns),
    )
    if proof.outcome is not Outcome.PASS:
        _add_outcome(case, _OUTCOME_ELEMENTS[proof.outcome], proof)
    for each in proof.tries:
        kind = "Error" if each.outcome is Outcome.ERROR else "Failure"
        _add_outcome(case, f"{'flaky' if proof.flaky else 'rerun'}{kind}", each)
    if proof.flaky:
        ElementTree.SubElement(case, "system-out").text = f"flaky: it passed at try {len(proof.tries) + 1}"


def _add_outcome(case: ElementTree.Element, element: str, proof: ProofDocument | TryDocument) -> None:
    not_passed = [each for each in proof.verdicts if each.outcome is not Outcome.PASS]
    worst = next(iter(rank_not_passed(proof.verdicts)), None)
    message = proof.error or (worst.reason if worst else "")
    element_node = ElementTree.SubElement(case, element, message=_replace_invalid_xml(message))
    if element != "skipped":
        element_node.set("type", worst.id if worst else "error")
    descriptions = [_describe_verdict(each, proof.verdicts) for each in not_passed]
    rerun = [f"rerun: {format_rerun_command(proof)}"] if isinstance(proof, ProofDocument) else []
    if isinstance(proof, ProofDocument):
        descriptions += [f"likely cause: {each.service}: {each.reason}" for each in proof.likely_causes]
    element_node.text = _replace_invalid_xml(
        "\n\n".join([*([proof.error] if proof.error else []), *descriptions, *rerun])
    )


def _describe_verdict(verdict: VerdictDocument, verdicts: tuple[VerdictDocument, ...]) -> str:
    position = verdict.position
    lines = [f"{position.path}:{position.line}:{position.column}: {verdict.outcome}[{verdict.id}]: {verdict.reason}"]
    lines.append(f"  expect {verdict.claim}")
    if verdict.follows_from is not None:
        lines.append(f"  a consequence of line {verdicts[verdict.follows_from].position.line}")
    lines += [f"  trace {witness.trace_id} span {witness.span_id}" for witness in verdict.witnesses[:1]]
    lines += [f"  help: {verdict.help}"] if verdict.help else []
    lines += [f"  {group}" for group in list_further_groups(verdict)]
    return "\n".join(lines)


def _make_counts(proofs: Iterable[ProofDocument]) -> dict[str, str]:
    proofs = list(proofs)
    counts = {"tests": str(len(proofs))}
    for outcome, name in ((Outcome.FAIL, "failures"), (Outcome.ERROR, "errors"), (Outcome.INCONCLUSIVE, "skipped")):
        counts[name] = str(sum(proof.outcome is outcome for proof in proofs))
    return counts | {"time": _format_seconds(sum(proof.duration_ns for proof in proofs))}


def _format_seconds(ns: int) -> str:
    return f"{ns / 1e9:.3f}"


def _replace_invalid_xml(text: str) -> str:
    return _INVALID_XML.sub("\ufffd", text)
