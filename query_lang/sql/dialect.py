"""The operations in which SQL engines differ. The compiler writes standard SQL, and these operations of a dialect.

An engine implements each operation as a function from SQL to SQL. An operation that an engine does not have raises
NotImplementedError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from decimal import Decimal
from typing import Literal

SqlType = Literal["integer", "integers", "booleans", "text", "double", "uuid"]


class SqlDialect(ABC):
    """The operations of an engine. Parameters and results are SQL expressions, unless they say otherwise."""

    @abstractmethod
    def cast(self, value: str, type_: SqlType) -> str:
        """Return `value` as this type."""

    def null(self, type_: SqlType) -> str:
        """Return NULL of this type."""
        return self.cast("NULL", type_)

    @abstractmethod
    def to_double(self, value: str) -> str:
        """Return `value` as a double, or NULL if it is not a number."""

    @abstractmethod
    def quote(self, text: str) -> str:
        """Return a text as a string literal. `text` is not SQL."""

    @abstractmethod
    def replace_columns(self, replacements: str) -> str:
        """Return the select list of all columns, some replaced. `replacements` are items like ``a + 1 AS a``."""

    # Aggregates

    @abstractmethod
    def first_by(self, value: str, order: str, count: int | None = None) -> str:
        """Return `value` of the row with the lowest `order`, or the values of the `count` lowest as a list."""

    @abstractmethod
    def last_by(self, value: str, order: str) -> str:
        """Return `value` of the row with the highest `order`."""

    @abstractmethod
    def any_value(self, value: str) -> str:
        """Return `value` of any row where it is not NULL."""

    @abstractmethod
    def all_true(self, condition: str) -> str:
        """Return whether `condition` is true for all rows where it is not NULL."""

    @abstractmethod
    def any_true(self, condition: str) -> str:
        """Return whether `condition` is true for any row."""

    @abstractmethod
    def collect(self, value: str, order: str | None = None, *, distinct: bool = False) -> str:
        """Return the values of all rows as a list."""

    @abstractmethod
    def join_texts(self, value: str, separator: str, order: str, *, distinct: bool = False) -> str:
        """Return the texts of all rows in one text. `separator` is not SQL."""

    @abstractmethod
    def sample_deviation(self, value: str) -> str:
        """Return the sample standard deviation."""

    @abstractmethod
    def nearest_rank(self, value: str, fraction: Decimal) -> str:
        """Return the quantile by nearest rank: the value at rank ⌈fraction·n⌉, exactly. `fraction` is not SQL."""

    # Lists and texts

    @abstractmethod
    def length(self, items: str) -> str:
        """Return the number of elements of a list."""

    @abstractmethod
    def flatten(self, lists: str) -> str:
        """Return the elements of a list of lists."""

    @abstractmethod
    def filter_list(self, items: str, name: str, condition: str) -> str:
        """Return the elements for which `condition` is true; it refers to an element by `name`, which is not SQL."""

    @abstractmethod
    def map_list(self, items: str, name: str, value: str) -> str:
        """Return `value` for each element; it refers to the element by `name`, which is not SQL."""

    @abstractmethod
    def have_common_element(self, left: str, right: str) -> str:
        """Return whether two lists have an element in common."""

    @abstractmethod
    def join_list(self, items: str, separator: str) -> str:
        """Return the texts of a list in one text. `separator` is not SQL."""

    @abstractmethod
    def hash(self, value: str) -> str:
        """Return an integer that is the same for equal values, and rarely for others."""

    @abstractmethod
    def matches(self, text: str, pattern: str) -> str:
        """Return whether a regular expression (RE2) matches anywhere in a text."""

    @abstractmethod
    def extract(self, text: str, pattern: str) -> str:
        """Return the first match of a regular expression (RE2). `pattern` is not SQL."""

    @abstractmethod
    def contains_text(self, text: str, part: str) -> str:
        """Return whether a text contains another."""

    # Attributes

    @abstractmethod
    def attribute(self, attributes: str, name: str) -> str:
        """Return an attribute of a column `attributes`, by any of its spellings. `name` is not SQL."""

    @abstractmethod
    def read_json(self, text: str, keys: tuple[str | int, ...]) -> str:
        """Return the part of a JSON text to which `keys` lead, as text; NULL if it is null, missing or no JSON."""

    @abstractmethod
    def is_encoded(self, value: str) -> str:
        """Return whether the text of an attribute value is encoded: an array, a list of pairs or bytes."""

    @abstractmethod
    def attribute_texts(self, value: str) -> str:
        """Return the texts of an attribute value: the elements of an array, or the value itself."""

    @abstractmethod
    def enabled_attributes(self, attributes: str) -> str:
        """Return the names of the attributes whose value is not `false`, as a list."""
