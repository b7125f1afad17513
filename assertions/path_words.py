"""Where a path was left, in words."""

from __future__ import annotations

from spanproof.assertions.claim_text import ClaimText
from spanproof.assertions.paths import Miss
from spanproof.assertions.wording import listed
from spanproof.query_lang.diagnostics import nearest


def describe_miss(about: ClaimText, miss: Miss) -> tuple[str, str | None, str | None]:
    """Return the reason, what came nearest, and what may help."""
    wanted = about.source(miss.step.at)
    if miss.kind == "start":
        return f"no request of `{wanted}` in this trace", None, None
    caller = about.source(miss.caller.at) if miss.caller else "the caller"
    if miss.kind == "split":
        return f"no single request of `{caller}` has all of these branches", None, None
    if miss.kind == "message":
        arrow = "->" if miss.arrow == "~>" else "~>"
        return (
            f"`{caller}` reached `{wanted}` {'by a call' if arrow == '->' else 'by a message'}",
            f"{arrow} {wanted}",
            f"write `{arrow}` for a {'call' if arrow == '->' else 'message'}",
        )
    if miss.kind == "operation":
        seen = listed([hop.operation for hop in miss.seen])
        return f"`{caller}` called {seen}, not `{wanted}`", seen, None
    if not miss.seen:
        return f"`{caller}` called nothing, so not `{wanted}`", None, None
    seen = listed([hop.service for hop in miss.seen])
    if miss.kind == "further":
        return f"`{caller}` called {seen}, not `{wanted}`", seen, f"`{wanted}` was reached further on: write `->>`"
    near = nearest(wanted, {hop.service for hop in miss.seen}, 1)
    if near:
        help_ = f"if that is intended, write `({wanted} | {near[0]})`"
        return f"`{caller}` called `{near[0]}`, not `{wanted}`", f"`{near[0]}`", help_
    return f"`{caller}` called {seen}, not `{wanted}`", seen, None
