"""Reader of JSON texts: one document or several; the arrays that hold the spans are decoded item by item.

A file of spans takes about ten times its size as Python objects. Therefore each array of spans is checked once, and
then decoded again, one span at a time, when it is iterated.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NoReturn, overload

from spanproof.collector.formats.json_documents import Json, UnreadableFile, raise_unreadable

# Keys below which an array of spans may be.
CONTAINER_KEYS: Final = frozenset(
    (
        "batches",
        "data",
        "instrumentationLibrarySpans",
        "resourceSpans",
        "result",
        "scopeSpans",
        "spans",
        "trace",
        "traces",
    )
)
_SPANS_KEY: Final = "spans"
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SURROGATE: Final = re.compile(r"\\u[dD][89a-fA-F]")


class LazyArray(Sequence[Json]):
    """A checked array whose items are decoded when they are read."""

    def __init__(self, starts: array[int], decode: Callable[[int], Json]) -> None:
        self._starts = starts
        self._decode = decode

    def __len__(self) -> int:
        return len(self._starts)

    @overload
    def __getitem__(self, index: int) -> Json: ...

    @overload
    def __getitem__(self, index: slice) -> list[Json]: ...

    def __getitem__(self, index: int | slice) -> Json:
        if isinstance(index, slice):
            return [self._decode(start) for start in self._starts[index]]
        return self._decode(self._starts[index])


def read_json_documents(content: bytes, first_line: int = 1) -> Iterator[tuple[int, Json]]:
    """Yield the documents of a text that begins at this line of its file, each with its first line.

    Raises UnreadableFile if the text is not strict JSON, or an object has a key twice.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = first_line + content.count(b"\n", 0, error.start)
        raise UnreadableFile(f"line {line}: not text in UTF-8") from None
    del content
    reader = _Reader(text, first_line)
    position = reader.skip_space(0)
    while True:
        line = reader.find_line(position)
        document, position = reader.read_document(position)
        yield line, document
        position = reader.skip_space(position)
        if position == len(text):
            return


class _Reader:
    def __init__(self, text: str, first_line: int) -> None:
        self._text = text
        self._first_line = first_line
        self._scan = json.JSONDecoder(object_pairs_hook=_make_object, parse_constant=_reject_constant).raw_decode
        self._may_have_surrogates = _SURROGATE.search(text) is not None

    def skip_space(self, position: int) -> int:
        """Return the position of the next character that is not white space."""
        match = _SPACE.match(self._text, position)
        return match.end() if match else position

    def find_line(self, position: int) -> int:
        """Return the line of a position."""
        return self._first_line + self._text.count("\n", 0, position)

    def read_document(self, position: int) -> tuple[Json, int]:
        """Return the document at `position`, and the position after it. Raise UnreadableFile."""
        try:
            return self._read_container(position, "")
        except RecursionError:
            raise_unreadable(f"line {self.find_line(position)}", "nested too deeply")
        except json.JSONDecodeError as error:
            place = f"line {self._first_line + error.lineno - 1}, column {error.colno}"
            message = error.msg.removesuffix(" at").removesuffix(" starting")  # the place comes first
            raise UnreadableFile(f"{place}: not JSON: {message}") from None

    def _read_container(self, position: int, key: str) -> tuple[Json, int]:
        match self._text[position : position + 1]:
            case "{":
                return self._read_object(position)
            case "[":
                return self._read_array(position, key)
            case _:
                return self._decode(position)

    def _read_object(self, position: int) -> tuple[Json, int]:
        pairs: list[tuple[str, Json]] = []
        position = self.skip_space(position + 1)
        if self._text[position : position + 1] == "}":
            return {}, position + 1
        while True:
            if self._text[position : position + 1] != '"':
                self._fail("Expecting property name enclosed in double quotes", position)
            key, position = self._decode(position)
            position = self.skip_space(position)
            if self._text[position : position + 1] != ":":
                self._fail("Expecting ':' delimiter", position)
            position = self.skip_space(position + 1)
            read = self._read_container if key in CONTAINER_KEYS else self._decode
            value, position = read(position, key)
            pairs.append((key, value))
            ended, position = self._skip_delimiter(position, "}")
            if ended:
                return _make_object(pairs), position

    def _read_array(self, position: int, key: str) -> tuple[Json, int]:
        items: list[Json] = []
        starts = array("Q")
        is_lazy = key == _SPANS_KEY
        position = self.skip_space(position + 1)
        if self._text[position : position + 1] == "]":
            return items, position + 1
        while True:
            starts.append(position)
            item, position = (self._decode if is_lazy else self._read_container)(position, "")
            if not is_lazy:
                items.append(item)
                # an array without a key has spans (Zipkin), unless its items have spans
                is_lazy = not key and isinstance(item, dict) and CONTAINER_KEYS.isdisjoint(item)
            ended, position = self._skip_delimiter(position, "]")
            if ended:
                return LazyArray(starts, self._decode_again) if is_lazy else items, position

    def _skip_delimiter(self, position: int, end: str) -> tuple[bool, int]:
        """Return whether the container ends here, and the position after the delimiter."""
        position = self.skip_space(position)
        character = self._text[position : position + 1]
        if character == end:
            return True, position + 1
        if character != ",":
            self._fail("Expecting ',' delimiter", position)
        return False, self.skip_space(position + 1)

    def _decode(self, position: int, _key: str = "") -> tuple[Json, int]:
        try:
            value, end = self._scan(self._text, position)
            if self._may_have_surrogates:
                json.dumps(value, ensure_ascii=False).encode()
        except json.JSONDecodeError:
            raise
        except UnicodeEncodeError:
            raise_unreadable(f"line {self.find_line(position)}", "an unpaired surrogate is not valid text")
        except ValueError as error:
            raise UnreadableFile(f"line {self.find_line(position)}: not JSON: {error}") from None
        return value, end

    def _decode_again(self, position: int) -> Json:
        return self._scan(self._text, position)[0]

    def _fail(self, problem: str, position: int) -> NoReturn:
        raise json.JSONDecodeError(problem, self._text, position)


def _make_object(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    result = dict(pairs)
    if len(result) < len(pairs):
        keys = [key for key, _ in pairs]
        duplicate = next(key for key in keys if keys.count(key) > 1)
        raise UnreadableFile(f"an object has the key {duplicate!r} twice; one value would be lost")
    return result


def _reject_constant(literal: str) -> NoReturn:
    raise ValueError(f"{literal} is not allowed")
