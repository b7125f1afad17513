"""Import from a file into the store; the whole file is checked before any span is stored."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Final, NoReturn

import pyarrow.compute as pc
from msgspec import Struct

from spanproof.collector.formats.import_log import ImportLog
from spanproof.collector.formats.json_documents import UnreadableFile
from spanproof.collector.formats.otlp_protobuf import read_delimited, write_delimited
from spanproof.collector.formats.read_file import ImportFormat, read_trace_file
from spanproof.collector.formats.requests import LocatedRequest
from spanproof.collector.otlp.decoder import Decoder, ExportResult
from spanproof.collector.storage.interface import SpanStore
from spanproof.collector.user_errors import StoreError

_BATCH_BYTES: Final = 2**18
_MAX_MEMORY_BYTES: Final = 64 * 2**20


class ImportSummary(Struct, frozen=True):
    """Numbers of imported spans and traces, and the log of the reading."""

    spans: int
    traces: int
    log: ImportLog


def import_file(
    store: SpanStore, path: Path, declared_format: ImportFormat | None = None, *, lenient: bool = False
) -> ImportSummary:
    """Store the spans of a file, in the declared or the detected format; if `lenient`, ignore unknown fields.

    Raises UnreadableFile if the file is invalid; then nothing is stored.
    """
    log = ImportLog(lenient=lenient)
    trace_ids: set[bytes] = set()
    decoder = Decoder()
    with tempfile.SpooledTemporaryFile(_MAX_MEMORY_BYTES) as checked:
        try:
            span_count = _validate_requests(decoder, read_trace_file(path, declared_format, log), checked, trace_ids)
        except UnreadableFile as error:
            raise UnreadableFile(f"{path}: {error}") from None
        if not span_count:
            notes = "".join(f"; {note}" for note in log.notes)
            raise UnreadableFile(f"{path}: the file contains no spans{log.format_skipped()}{notes}")
        checked.seek(0)
        _store_requests(store, decoder, checked, f"{path}: of {span_count} spans")
    return ImportSummary(span_count, len(trace_ids), log)


def _batch_requests(requests: Iterable[LocatedRequest]) -> Iterator[list[LocatedRequest]]:
    batch: list[LocatedRequest] = []
    size = 0
    for request in requests:
        if batch and size + len(request.body) > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(request)
        size += len(request.body)
    if batch:
        yield batch


def _validate_requests(
    decoder: Decoder, requests: Iterable[LocatedRequest], checked: IO[bytes], trace_ids: set[bytes]
) -> int:
    """Decode all requests, and write them to `checked`; return the number of spans."""
    span_count = 0
    for batch in _batch_requests(requests):
        # concatenated requests form one request, which takes far less memory than many small ones
        body = b"".join(request.body for request in batch)
        decoded = decoder.decode([body])
        (outcome,) = decoded.outcomes
        if not isinstance(outcome, ExportResult) or outcome.rejected_spans:
            _raise_first_problem(decoder, batch)
        span_count += len(decoded.spans)
        trace_ids.update(pc.unique(decoded.spans["trace_id"].combine_chunks().storage).to_pylist())
        write_delimited(checked, body)
    return span_count


def _raise_first_problem(decoder: Decoder, batch: list[LocatedRequest]) -> NoReturn:
    """Decode the requests of a batch one by one to find the one with a problem."""
    for request in batch:
        (outcome,) = decoder.decode([request.body]).outcomes
        if not isinstance(outcome, ExportResult):
            raise UnreadableFile(request.locate_problem(str(outcome)))
        if outcome.rejected_spans:
            raise UnreadableFile(request.locate_problem(outcome.error_message))
    raise AssertionError("a batch was rejected, but none of its requests")


def _store_requests(store: SpanStore, decoder: Decoder, checked: IO[bytes], context: str) -> None:
    stored = 0
    for body in read_delimited(checked):
        decoded = decoder.decode([body])
        try:
            store.append(decoded)
        except StoreError as error:
            remedy = "; import the file again: duplicate spans count once" if stored else ""
            raise StoreError(f"{context}, {stored} are stored: {error}{remedy}") from error
        stored += len(decoded.spans)
