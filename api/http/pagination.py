"""Cursors: the start of the next page of a response, as an opaque text."""

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
    """Return the cursor for the page that follows `position` in the response to `parameters`."""
    text = json.dumps([_digest(parameters), position], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(parameters: QueryParameters, cursor: str, adapter: TypeAdapter[T]) -> T:
    """Return the position that a page follows.

    Raises ProblemError if `cursor` is not a cursor, or belongs to a query with other parameters.
    """
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), b"-_", validate=True)
        digest, values = json.loads(text)
        position = adapter.validate_python(values)
    except (binascii.Error, TypeError, ValueError, RecursionError):
        raise ProblemError(422, "invalid request", "cursor: is not the `next` of an earlier response") from None
    if digest != _digest(parameters):
        raise ProblemError(422, "invalid request", "cursor: belongs to a query with other parameters")
    return position


def _digest(parameters: QueryParameters) -> str:
    return hashlib.sha256(parameters.model_dump_json(exclude={"cursor", "limit"}).encode()).hexdigest()[:16]
