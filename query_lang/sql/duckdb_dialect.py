"""The operations of DuckDB's SQL."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

from spanproof.collector.otlp.semantic_conventions import list_spellings
from spanproof.query_lang.sql.dialect import SqlDialect, SqlType

_TYPES: Final[dict[SqlType, str]] = {
    "integer": "BIGINT",
    "integers": "BIGINT[]",
    "booleans": "BOOLEAN[]",
    "text": "VARCHAR",
    "double": "DOUBLE",
    "uuid": "UUID",
}
# DuckDB computes the rank of a DECIMAL share in integers. With this many digits it is exact for up to 10^12 values.
_EXACT_DIGITS: Final = 6


class DuckDbDialect(SqlDialect):
    """DuckDB's dialect. Attributes are two lists, of keys and of texts."""

    def cast(self, value: str, type_: SqlType) -> str:
        return f"{value}::{_TYPES[type_]}"

    def to_double(self, value: str) -> str:
        return f"TRY_CAST({value} AS DOUBLE)"

    def quote(self, text: str) -> str:
        return "'" + text.replace("'", "''") + "'"

    def replace_columns(self, replacements: str) -> str:
        return f"* REPLACE ({replacements})"

    def first_by(self, value: str, order: str, count: int | None = None) -> str:
        return f"arg_min({value}, {order})" if count is None else f"arg_min({value}, {order}, {count})"

    def last_by(self, value: str, order: str) -> str:
        return f"arg_max({value}, {order})"

    def any_value(self, value: str) -> str:
        return f"any_value({value})"

    def all_true(self, condition: str) -> str:
        return f"bool_and({condition})"

    def any_true(self, condition: str) -> str:
        return f"bool_or({condition})"

    def collect(self, value: str, order: str | None = None, *, distinct: bool = False) -> str:
        return f"list({'DISTINCT ' if distinct else ''}{value}{f' ORDER BY {order}' if order else ''})"

    def join_texts(self, value: str, separator: str, order: str, *, distinct: bool = False) -> str:
        return f"string_agg({'DISTINCT ' if distinct else ''}{value}, {self.quote(separator)} ORDER BY {order})"

    def sample_deviation(self, value: str) -> str:
        return f"stddev_samp({value})"

    def nearest_rank(self, value: str, fraction: Decimal) -> str:
        if -int(fraction.as_tuple().exponent) <= _EXACT_DIGITS:
            return f"quantile_disc({value}, {fraction:f}::DECIMAL(18, {_EXACT_DIGITS}))"
        top, bottom = fraction.as_integer_ratio()
        return f"list_sort(list({value}))[(count(*) * {top} + {bottom - 1}) // {bottom}]"

    def length(self, items: str) -> str:
        return f"len({items})"

    def flatten(self, lists: str) -> str:
        return f"flatten({lists})"

    def filter_list(self, items: str, name: str, condition: str) -> str:
        return f"list_filter({items}, lambda {name}: {condition})"

    def map_list(self, items: str, name: str, value: str) -> str:
        return f"list_transform({items}, lambda {name}: {value})"

    def have_common_element(self, left: str, right: str) -> str:
        return f"list_has_any({left}, {right})"

    def join_list(self, items: str, separator: str) -> str:
        return f"list_aggregate({items}, 'string_agg', {self.quote(separator)})"

    def hash(self, value: str) -> str:
        return f"hash({value})"

    def matches(self, text: str, pattern: str) -> str:
        return f"regexp_matches({text}, {pattern})"

    def extract(self, text: str, pattern: str) -> str:
        return f"regexp_extract({text}, {self.quote(pattern)})"

    def contains_text(self, text: str, part: str) -> str:
        return f"contains({text}, {part})"

    def attribute(self, attributes: str, name: str) -> str:
        # DuckDB finds a constant key faster than a parameter.
        reads = [
            f"{attributes}.texts[list_position({attributes}.keys, {self.quote(spelling)})]"
            for spelling in list_spellings(name)
        ]
        return reads[0] if len(reads) == 1 else f"coalesce({', '.join(reads)})"

    def read_json(self, text: str, keys: tuple[str | int, ...]) -> str:
        if not keys:
            return f"json_extract_string(CASE WHEN json_valid({text}) THEN {text} END, '$')"
        # a JSON pointer, RFC 6901: in a path of DuckDB's, some keys are wildcards
        pointer = "".join(f"/{str(key).replace('~', '~0').replace('/', '~1')}" for key in keys)
        return f"json_extract_string(CASE WHEN json_valid({text}) THEN {text} END, {self.quote(pointer)})"

    def is_encoded(self, value: str) -> str:
        return f"{value}[1] = chr(1)"

    def attribute_texts(self, value: str) -> str:
        return f"attribute_texts({value})"  # a macro of the store's schema

    def enabled_attributes(self, attributes: str) -> str:
        return f"list_filter({attributes}.keys, lambda key, index: {attributes}.texts[index] <> 'false')"


SQL: Final = DuckDbDialect()
