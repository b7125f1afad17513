"""Cursors: where the next page of an answer begins, as a text that says nothing to who holds it."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Annotated, TypeVar

from pydantic import Field, TypeAdapter

from spanproof.api.http.parameters import EARLIEST_NS, LATEST_NS, QueryParameters
from spanproof.api.http.problems import ProblemError

BoundedInt = Annotated[int, Field(strict=True, ge=EARLIEST_NS, le=LATEST_NS)]
T = TypeVar("T")


def write_cursor(parameters: QueryParameters, position: tuple[object, ...]) -> str:
    """Write the cursor for the page of the answer to `question` that follows `place`."""
    text = json.dumps([_digest(parameters), position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(parameters: QueryParameters, cursor: str, adapter: TypeAdapter[T]) -> T:
    """Read the place that a page follows. Raises ProblemError for what is no cursor, or one of another question."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        digest, place = json.loads(text)
        found = adapter.validate_python(place)
    except (binascii.Error, TypeError, ValueError, RecursionError):
        raise ProblemError(422, "invalid request", "cursor: is none that an answer gave as `next`") from None
    if digest != _digest(parameters):
        raise ProblemError(422, "invalid request", "cursor: belongs to a question with other parameters")
    return found


def _digest(parameters: QueryParameters) -> str:
    return hashlib.sha256(parameters.model_dump_json(exclude={"cursor", "limit"}).encode()).hexdigest()[:16]
