"""Keeps secrets out of what is told of a run, so that no report, stored run or stream of events holds one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Final

from spanproof.assertions.events import Event, Judged, ProofFinished, ProofStarted, RunFinished, Sending, Wait, Waiting
from spanproof.assertions.evidence import TraceView
from spanproof.assertions.verdict import Mark, Verdict
from spanproof.query_lang import syntax as s
from spanproof.query_lang.constants import Bindings, NoValue, as_text, evaluate, fill
from spanproof.query_lang.parse import ProofFile
from spanproof.query_lang.secrecy import Secrets

# What these say is no secret, and is found in many places.
PLAIN_HEADERS: Final = ("accept", "accept-encoding", "accept-language", "content-type", "host", "user-agent")


def learn_headers(when: s.When, bindings: Bindings) -> None:
    """Add the values of a request's headers to the secrets, and what follows a scheme, as in ``Bearer …``."""
    for option in when.options:
        if option.kind != "header" or option.key is None:
            continue
        with suppress(NoValue):  # who sends the request will say so
            value = evaluate(option.value, bindings)  # type: ignore[arg-type]  # an expression, not JSON
            if value is None or fill(option.key, bindings).lower() in PLAIN_HEADERS:
                continue
            text = as_text(value)
            bindings.secrets.add(text)
            scheme, space, credentials = text.partition(" ")
            if space and scheme.isalpha():
                bindings.secrets.add(credentials)


def mask_event(event: Event, secrets: Secrets) -> Event:
    """Return an event without the secrets that are known by now."""
    if secrets.is_empty:
        return event
    match event:
        case ProofStarted():
            return replace(event, file=_mask_file(event.file, secrets))
        case Waiting():
            return replace(event, missing=_mask_all(event.missing, secrets))
        case Judged():
            return _mask_judged(event, secrets)
        case ProofFinished():
            return _mask_finished(event, secrets)
        case Sending() | RunFinished():
            return event


def _mask_finished(event: ProofFinished, secrets: Secrets) -> ProofFinished:
    return replace(
        event,
        file=_mask_file(event.file, secrets),
        judged=tuple(_mask_judged(each, secrets) for each in event.judged),
        view=None if event.view is None else _mask_view(event.view, secrets),
        error=None if event.error is None else secrets.mask(event.error),
        waits=tuple(Wait(each.at_ns, each.open_claims, _mask_all(each.missing, secrets)) for each in event.waits),
        tries=tuple(_mask_finished(each, secrets) for each in event.tries),
        notes=_mask_all(event.notes, secrets),
    )


def _mask_judged(event: Judged, secrets: Secrets) -> Judged:
    expectation = event.expectation
    if expectation.label is not None:
        label = replace(expectation.label, parts=(secrets.mask(expectation.label.plain),))
        expectation = replace(expectation, label=label)
    return Judged(_mask_file(event.file, secrets), expectation, _mask_verdict(event.verdict, secrets))


def _mask_verdict(verdict: Verdict, secrets: Secrets) -> Verdict:
    return replace(
        verdict,
        reason=secrets.mask(verdict.reason),
        mark=secrets.mask(verdict.mark),
        observed=None if verdict.observed is None else secrets.mask(verdict.observed),
        help=None if verdict.help is None else secrets.mask(verdict.help),
        marks=tuple(Mark(each.at, secrets.mask(each.text)) for each in verdict.marks),
    )


def _mask_file(file: ProofFile, secrets: Secrets) -> ProofFile:
    """Blot the text, so that places in it stay what they are."""
    return replace(file, text=secrets.blot(file.text))


def _mask_view(view: TraceView, secrets: Secrets) -> TraceView:
    spans = tuple(
        replace(
            each,
            service=secrets.mask(each.service),
            name=secrets.mask(each.name),
            attributes={key: secrets.mask(text) for key, text in each.attributes.items()},
        )
        for each in view.spans
    )
    return replace(view, spans=spans)


def _mask_all(texts: tuple[str, ...], secrets: Secrets) -> tuple[str, ...]:
    return tuple(secrets.mask(text) for text in texts)
