"""Comparators of the language as Python functions on numbers."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from typing import Any, Final

COMPARATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
