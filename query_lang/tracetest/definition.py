"""YAML definitions whose parts have their range in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator

import yaml
from msgspec import Struct

from spanproof.query_lang.syntax.diagnostics import suggest_names
from spanproof.query_lang.syntax.nodes import TextRange
from spanproof.query_lang.tracetest.unsupported import make_malformed_error


class YamlPart(Struct, frozen=True):
    """Part of a definition: a mapping, a list, or a text (numbers are also texts)."""

    node: yaml.Node
    file: str

    @property
    def at(self) -> TextRange:
        """Range in the file, without trailing white space."""
        start, end = self.node.start_mark.index, self.node.end_mark.index
        return TextRange(start, start + max(len(self.file[start:end].rstrip()), 1))

    def read_fields(self, *known: str) -> dict[str, YamlPart]:
        """Return the fields of a mapping. Raises DiagnosticError for one not in `known`, unless `known` is empty."""
        if not isinstance(self.node, yaml.MappingNode):
            raise make_malformed_error("names and values are expected here", self.at)
        fields: dict[str, YamlPart] = {}
        for key, value in self.node.value:
            name = YamlPart(key, self.file)
            text = name.read_text()
            if known and text not in known:
                raise make_malformed_error(f"`{text}` is not known here", name.at, suggest_names(text, known))
            if text in fields:
                raise make_malformed_error(f"`{text}` occurs twice", name.at)
            fields[text] = YamlPart(value, self.file)
        return fields

    def read_items(self) -> tuple[YamlPart, ...]:
        """Return the items of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise make_malformed_error("a list is expected here", self.at)
        return tuple(YamlPart(item, self.file) for item in self.node.value)

    def read_text(self) -> str:
        """Return a text, or a number as written."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise make_malformed_error("a text is expected here", self.at)
        return str(self.node.value) if self.node.tag != "tag:yaml.org,2002:null" else ""

    def is_true(self) -> bool:
        """Return whether a text is a true value."""
        return self.read_text().lower() in ("true", "yes", "on")

    def locate_part(self, start: int, end: int) -> TextRange:
        """Return the range in the file of the characters from `start` to `end` of the text.

        If the file has other line breaks than the text, or escapes, this can be the range of the whole text.
        """
        words = re.split(r"\s+", self.read_text()[:end])
        pattern = r"\s+".join(re.escape(word) for word in words)
        range_ = self.at
        matched = re.search(pattern, self.file[range_.start : range_.end])
        if matched is None:
            return range_
        begin = range_.start + matched.end() - (end - start)
        is_equal = self.file[begin : range_.start + matched.end()] == self.read_text()[start:end]
        return TextRange(begin, range_.start + matched.end()) if is_equal else range_


def read_yaml_documents(text: str) -> Iterator[YamlPart]:
    """Yield the documents of a file. Raises DiagnosticError if it is not YAML."""
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            yield YamlPart(node, text)
    except yaml.MarkedYAMLError as error:
        index = error.problem_mark.index if error.problem_mark else 0
        raise make_malformed_error(f"not YAML: {error.problem}", TextRange(index, index + 1)) from None
    except yaml.YAMLError as error:
        raise make_malformed_error(f"not YAML: {str(error).splitlines()[0]}", TextRange(0, 1)) from None
    except RecursionError:
        raise make_malformed_error("not YAML: nested too deeply", TextRange(0, 1)) from None
