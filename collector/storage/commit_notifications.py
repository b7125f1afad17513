"""Spans that a commit has stored, and the listeners that are notified of them."""

from __future__ import annotations

import logging
from functools import cached_property
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Callable

    CommitListener = Callable[["ArrivedSpans"], None]

_log = logging.getLogger(__name__)


class ArrivedSpans(Struct, frozen=True, dict=True):
    """The spans of one commit, in the columns of the table `spans`. Trace ids are 32 hexadecimal digits."""

    spans: pa.Table

    @cached_property
    def trace_ids(self) -> frozenset[str]:
        """The traces of the spans."""
        return _format_distinct_ids(self.spans["trace_id"].combine_chunks())

    @cached_property
    def services(self) -> frozenset[str]:
        """The services that sent the spans."""
        return frozenset(pc.unique(self.spans["service"]).to_pylist())

    @cached_property
    def linked_trace_ids(self) -> frozenset[str]:
        """The traces to which the spans link."""
        return _format_distinct_ids(self.spans["links"].combine_chunks().flatten().field("trace_id"))

    @cached_property
    def attribute_names(self) -> frozenset[str]:
        """The names of the attributes of the spans."""
        keys = self.spans["attributes"].combine_chunks().field("keys")
        return frozenset(pc.unique(keys.flatten()).to_pylist())


class ArrivalNotifier:
    """Notifies listeners of each commit, in the thread that committed."""

    def __init__(self) -> None:
        self._listeners: list[CommitListener] = []

    def subscribe(self, listener: CommitListener) -> Callable[[], None]:
        """Call `listener` after each commit. Return the function that ends the subscription."""
        self._listeners = [*self._listeners, listener]

        def unsubscribe() -> None:
            self._listeners = [each for each in self._listeners if each is not listener]

        return unsubscribe

    def notify(self, spans: pa.Table) -> None:
        """Call the listeners with the spans of a commit. A listener that fails is logged: the commit stays."""
        listeners = self._listeners
        if not listeners:
            return
        arrived = ArrivedSpans(spans)
        for listener in listeners:
            try:
                listener(arrived)
            except Exception:
                _log.exception("a listener of the store failed")


def _format_distinct_ids(ids: pa.ExtensionArray) -> frozenset[str]:
    return frozenset(trace_id.hex() for trace_id in pc.unique(ids.storage).to_pylist())
