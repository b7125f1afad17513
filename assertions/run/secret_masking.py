"""Masking of secrets in events, so that no report, stored run or event stream contains one."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from spanproof.assertions.explain.likely_cause import LikelyCause
from spanproof.assertions.explain.trace_evidence import TraceView
from spanproof.assertions.findings.verdict import Mark, Verdict
from spanproof.assertions.run.events import (
    ClaimJudged,
    ProofFinished,
    ProofStarted,
    RequestProgress,
    RunEvent,
    RunFinished,
    Wait,
    WaitingForSpans,
)
from spanproof.query_lang.check.constants import Bindings, MissingValue, evaluate, format_constant, interpolate
from spanproof.query_lang.check.secrets import Secrets
from spanproof.query_lang.syntax import nodes as s
from spanproof.query_lang.syntax.parser import ParsedFile

# The values of these headers are not secret and occur in many places.
PUBLIC_HEADERS: Final = ("accept", "accept-encoding", "accept-language", "content-type", "host", "user-agent")


def register_header_secrets(when: s.When, bindings: Bindings) -> None:
    """Add the header values of a request to the secrets, and the credentials after a scheme, as in ``Bearer …``."""
    for option in when.options:
        if option.kind != "header" or option.key is None:
            continue
        with suppress(MissingValue):  # sending the request reports the missing value
            value = evaluate(option.value, bindings)  # type: ignore[arg-type]  # an expression, not JSON
            if value is None or interpolate(option.key, bindings).lower() in PUBLIC_HEADERS:
                continue
            text = format_constant(value)
            bindings.secrets.add(text)
            scheme, space, credentials = text.partition(" ")
            if space and scheme.isalpha():
                bindings.secrets.add(credentials)


def mask_event(event: RunEvent, secrets: Secrets) -> RunEvent:
    """Return an event with the currently known secrets masked."""
    if secrets.is_empty:
        return event
    match event:
        case ProofStarted():
            return replace(event, file=_mask_file(event.file, secrets))
        case WaitingForSpans():
            return replace(event, missing=_mask_texts(event.missing, secrets))
        case ClaimJudged():
            return _mask_judged(event, secrets)
        case ProofFinished():
            return _mask_finished(event, secrets)
        case RequestProgress() | RunFinished():
            return event


def _mask_finished(event: ProofFinished, secrets: Secrets) -> ProofFinished:
    return replace(
        event,
        file=_mask_file(event.file, secrets),
        judged=tuple(_mask_judged(each, secrets) for each in event.judged),
        view=None if event.view is None else _mask_view(event.view, secrets),
        error=None if event.error is None else secrets.mask(event.error),
        waits=tuple(Wait(each.at_ns, each.open_claims, _mask_texts(each.missing, secrets)) for each in event.waits),
        tries=tuple(_mask_finished(each, secrets) for each in event.tries),
        notes=_mask_texts(event.notes, secrets),
        likely_causes=tuple(
            LikelyCause(secrets.mask(each.service), each.effect, secrets.mask(each.reason))
            for each in event.likely_causes
        ),
    )


def _mask_judged(event: ClaimJudged, secrets: Secrets) -> ClaimJudged:
    expectation = event.expectation
    if expectation.label is not None:
        label = replace(expectation.label, parts=(secrets.mask(expectation.label.plain),))
        expectation = replace(expectation, label=label)
    return ClaimJudged(_mask_file(event.file, secrets), expectation, _mask_verdict(event.verdict, secrets))


def _mask_verdict(verdict: Verdict, secrets: Secrets) -> Verdict:
    return replace(
        verdict,
        reason=secrets.mask(verdict.reason),
        mark=secrets.mask(verdict.mark),
        observed=None if verdict.observed is None else secrets.mask(verdict.observed),
        help=None if verdict.help is None else secrets.mask(verdict.help),
        marks=tuple(Mark(each.at, secrets.mask(each.text)) for each in verdict.marks),
        groups=tuple(
            replace(
                each,
                key=tuple((name, None if text is None else secrets.mask(text)) for name, text in each.key),
                text=secrets.mask(each.text),
            )
            for each in verdict.groups
        ),
    )


def _mask_file(file: ParsedFile, secrets: Secrets) -> ParsedFile:
    """Mask the text of a file without changing its length, so that positions stay valid."""
    return replace(file, text=secrets.mask_keeping_length(file.text))


def _mask_view(view: TraceView, secrets: Secrets) -> TraceView:
    spans = tuple(
        dataclasses.replace(
            each,
            service=secrets.mask(each.service),
            name=secrets.mask(each.name),
            attributes={key: secrets.mask(text) for key, text in each.attributes.items()},
        )
        for each in view.spans
    )
    return dataclasses.replace(view, spans=spans)


def _mask_texts(texts: tuple[str, ...], secrets: Secrets) -> tuple[str, ...]:
    return tuple(secrets.mask(text) for text in texts)
