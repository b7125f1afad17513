"""Redaction: masks attributes by key, and parts of values by pattern."""

from __future__ import annotations

import base64
import json
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

from spanproof.collector.line_files import read_lines
from spanproof.collector.otlp.attribute_encoding import KIND_MARKER
from spanproof.collector.otlp.json_mapping import dump_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

MASK = "[redacted]"


class Redaction(Struct, frozen=True, dict=True):
    """Redaction rules: `keys`, case-insensitive, with `*` for any text, and `values`, regular expressions (RE2).

    A key also applies inside nested values, by itself (`email`) or with its path (`user.email`).
    """

    keys: tuple[str, ...] = ()
    values: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.keys or self.values)

    def redact_texts(self, texts: pa.StringArray) -> pa.StringArray:
        """Mask the matches of the value rules in texts that have no key."""
        if not self.values:
            return texts
        return pc.replace_substring_regex(texts, self._pattern, MASK)

    def redact_attributes(
        self, keys: pa.StringArray, texts: pa.StringArray, kinds: pa.UInt8Array
    ) -> tuple[pa.StringArray, pa.UInt8Array]:
        """Mask attributes in the store's columns; a masked value becomes a string."""
        marked = pc.starts_with(texts, KIND_MARKER).fill_null(False)
        if pc.any(marked).as_py():
            texts, kinds = self._redact_marked(keys, texts, kinds, marked)
        changed = self._match_keys(keys)
        replaced = pc.if_else(changed, MASK, texts)
        if self.values:
            found = pc.match_substring_regex(replaced, self._pattern).fill_null(False)
            matches = pc.and_not(found, pc.or_(marked, changed))
            if pc.any(matches).as_py():
                replaced = pc.if_else(matches, pc.replace_substring_regex(replaced, self._pattern, MASK), replaced)
                changed = pc.or_(changed, matches)
        return replaced, pc.if_else(changed, pa.scalar(ord("s"), pa.uint8()), kinds)

    def _match_keys(self, keys: pa.StringArray) -> pa.BooleanArray:
        encoded = keys.dictionary_encode()
        is_redacted = [self._is_redacted_key(key) for key in encoded.dictionary.to_pylist()]
        return pa.array(is_redacted, pa.bool_()).take(encoded.indices)

    def _redact_marked(
        self, keys: pa.StringArray, texts: pa.StringArray, kinds: pa.UInt8Array, marked: pa.BooleanArray
    ) -> tuple[pa.StringArray, pa.UInt8Array]:
        """Redact nested values one by one; equal values are redacted once."""
        rows = pc.indices_nonzero(marked)
        cache: dict[tuple[str, str], str] = {}
        redacted: list[str] = []
        for key, text in zip(keys.take(rows).to_pylist(), texts.take(rows).to_pylist(), strict=True):
            if (key, text) not in cache:
                cache[key, text] = self._redact_one(key, text)
            redacted.append(cache[key, text])
        letters = [ord(text[1]) if text.startswith(KIND_MARKER) else ord("s") for text in redacted]
        return (
            pc.replace_with_mask(texts, marked, pa.array(redacted, pa.string())),
            pc.replace_with_mask(kinds, marked, pa.array(letters, pa.uint8())),
        )

    def _redact_one(self, key: str, text: str) -> str:
        kind, content = text[1], text[2:]
        if kind == "s":
            redacted = self._mask(content)
            return f"{KIND_MARKER}s{redacted}" if redacted.startswith(KIND_MARKER) else redacted
        if kind == "y":
            return text if self._mask_bytes(content) is None else MASK
        value = json.loads(content)
        redact = self._redact_list if kind == "a" else self._redact_pairs
        return f"{KIND_MARKER}{kind}{dump_json(redact(value, key))}"

    def _redact_list(self, values: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
        return [self._redact_value(value, path) for value in values]

    def _redact_pairs(self, pairs: list[dict[str, Any]], path: str) -> list[dict[str, Any]]:
        redacted = []
        for pair in pairs:
            key = pair.get("key", "")
            inner = f"{path}.{key}"
            if self._is_redacted_key(key) or self._is_redacted_key(inner):
                redacted.append({**pair, "value": {"stringValue": MASK}})
            elif "value" in pair:
                redacted.append({**pair, "value": self._redact_value(pair["value"], inner)})
            else:
                redacted.append(pair)
        return redacted

    def _redact_value(self, value: dict[str, Any], path: str) -> dict[str, Any]:
        for kind, content in value.items():  # at most one
            match kind:
                case "arrayValue":
                    return {kind: {**content, "values": self._redact_list(content.get("values", []), path)}}
                case "kvlistValue":
                    return {kind: {**content, "values": self._redact_pairs(content.get("values", []), path)}}
                case "bytesValue":
                    masked = self._mask_bytes(content)
                case "boolValue":
                    masked = self._mask_if_matching(dump_json(content))
                case _:
                    masked = self._mask_if_matching(str(content))
            return value if masked is None else {"stringValue": masked}
        return value

    def _mask_if_matching(self, text: str) -> str | None:
        masked = self._mask(text)
        return None if masked == text else masked

    def _mask_bytes(self, content: str) -> str | None:
        return None if self._mask_if_matching(base64.b64decode(content).decode(errors="replace")) is None else MASK

    def _mask(self, text: str) -> str:
        if not self.values:
            return text
        masked: str = pc.replace_substring_regex(pa.scalar(text), self._pattern, MASK).as_py()
        return masked

    def _is_redacted_key(self, key: str) -> bool:
        return self._keys is not None and self._keys.fullmatch(key) is not None

    @cached_property
    def _keys(self) -> re.Pattern[str] | None:
        globs = (".*".join(re.escape(part) for part in key.split("*")) for key in self.keys)
        return re.compile("|".join(globs), re.IGNORECASE | re.DOTALL) if self.keys else None

    @cached_property
    def _pattern(self) -> str:
        return "|".join(f"(?:{value})" for value in self.values)


NO_REDACTION = Redaction()


def make_redaction(keys: Iterable[str], values: Iterable[str], file: Path | None) -> Redaction:
    """Return the given rules and those in a file. Raise ValueError for an invalid rule."""
    rules = [("key", key, "") for key in keys] + [("value", value, "") for value in values]
    rules += read_redaction_rules(file) if file else []
    for kind, rule, location in rules:
        if not rule:
            raise ValueError(f"{location}a redaction rule is empty")
        if kind == "value":
            _check_pattern(rule, location)
    return Redaction(*(tuple(rule for kind, rule, _ in rules if kind == wanted) for wanted in ("key", "value")))


def read_redaction_rules(path: Path) -> list[tuple[str, str, str]]:
    """Return the lines `key NAME` and `value REGEX`, each with its position; lines that start with `#` are comments."""
    rules: list[tuple[str, str, str]] = []
    for number, line in enumerate(read_lines(path), 1):
        kind, _, rule = line.strip().partition(" ")
        if not kind or kind.startswith("#"):
            continue
        if kind not in ("key", "value"):
            raise ValueError(f"{path}:{number}: a rule is `key NAME` or `value REGEX`, not {line.strip()!r}")
        rules.append((kind, rule.strip(), f"{path}:{number}: "))
    if not rules:
        raise ValueError(f"{path}: the file contains no rule")
    return rules


def _check_pattern(pattern: str, location: str) -> None:
    try:
        matches_empty = pc.match_substring_regex(pa.scalar(""), pattern).as_py()
    except pa.ArrowInvalid as error:
        problem = str(error).removeprefix("Invalid regular expression: ")
        raise ValueError(f"{location}{pattern!r} is not a regular expression (RE2): {problem}") from None
    if matches_empty:
        raise ValueError(f"{location}{pattern!r} also matches the empty text; it would mask everything")
