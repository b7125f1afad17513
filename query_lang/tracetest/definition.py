"""A definition in YAML, in which everything knows its place in the file."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from spanproof.query_lang.diagnostics import did_you_mean
from spanproof.query_lang.syntax import Source
from spanproof.query_lang.tracetest.constructs import malformed


@dataclass(frozen=True, slots=True)
class Definition:
    """A part of a definition: a mapping, a list, or a text (numbers are texts, too)."""

    node: yaml.Node
    file: str

    @property
    def at(self) -> Source:
        """Where it stands, without the white space after it."""
        start, end = self.node.start_mark.index, self.node.end_mark.index
        return Source(start, start + max(len(self.file[start:end].rstrip()), 1))

    def fields(self, *known: str) -> dict[str, Definition]:
        """Return what a mapping holds. Raises Refused for a name that is not `known`, unless none is given."""
        if not isinstance(self.node, yaml.MappingNode):
            raise malformed("names and values are expected here", self.at)
        found: dict[str, Definition] = {}
        for key, value in self.node.value:
            name = Definition(key, self.file)
            text = name.text()
            if known and text not in known:
                raise malformed(f"`{text}` is not known here", name.at, did_you_mean(text, known))
            if text in found:
                raise malformed(f"`{text}` stands twice", name.at)
            found[text] = Definition(value, self.file)
        return found

    def items(self) -> tuple[Definition, ...]:
        """Return the items of a list."""
        if not isinstance(self.node, yaml.SequenceNode):
            raise malformed("a list is expected here", self.at)
        return tuple(Definition(item, self.file) for item in self.node.value)

    def text(self) -> str:
        """Return a text, or a number as it is written."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise malformed("a text is expected here", self.at)
        return str(self.node.value) if self.node.tag != "tag:yaml.org,2002:null" else ""

    def is_true(self) -> bool:
        """Tell whether a text says yes."""
        return self.text().lower() in ("true", "yes", "on")

    def part(self, start: int, end: int) -> Source:
        """Return where a part of the text stands: `start` and `end` count its characters.

        Lines may be broken otherwise in the file than in the text, and letters escaped; then it is the whole of it.
        """
        wanted = re.split(r"\s+", self.text()[:end])
        pattern = r"\s+".join(re.escape(word) for word in wanted)
        whole = self.at
        matched = re.search(pattern, self.file[whole.start : whole.end])
        if matched is None:
            return whole
        begin = whole.start + matched.end() - (end - start)
        same = self.file[begin : whole.start + matched.end()] == self.text()[start:end]
        return Source(begin, whole.start + matched.end()) if same else whole


def read_definitions(text: str) -> Iterator[Definition]:
    """Yield the documents of a file. Raises Refused where it is no YAML."""
    try:
        for node in yaml.compose_all(text, Loader=yaml.SafeLoader):
            yield Definition(node, text)
    except yaml.MarkedYAMLError as error:
        index = error.problem_mark.index if error.problem_mark else 0
        raise malformed(f"not YAML: {error.problem}", Source(index, index + 1)) from None
    except yaml.YAMLError as error:
        raise malformed(f"not YAML: {str(error).splitlines()[0]}", Source(0, 1)) from None
    except RecursionError:
        raise malformed("not YAML: nested too deeply", Source(0, 1)) from None
