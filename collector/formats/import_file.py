"""From a file into the store: all of it is checked before any of it is stored."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import pyarrow.compute as pc

from spanproof.collector.formats.json_documents import UnreadableFile
from spanproof.collector.formats.otlp_protobuf import read_delimited, write_delimited
from spanproof.collector.formats.read_file import ImportFormat, read_trace_file
from spanproof.collector.formats.requests import LocatedRequest
from spanproof.collector.otlp.decoder import DecodedBatch, Decoder, ExportResult
from spanproof.collector.storage.store import Store
from spanproof.collector.user_errors import StoreError

_BATCH_BYTES: Final = 4 * 2**20
_MAX_MEMORY_BYTES: Final = 64 * 2**20


@dataclass(frozen=True, slots=True)
class ImportSummary:
    """What a file held, and what of it is no trace: documents by what they hold."""

    spans: int
    traces: int
    skipped: Counter[str]


def import_file(store: Store, path: Path, declared_format: ImportFormat | None = None) -> ImportSummary:
    """Store the spans of a file, of the format told or found. Raises UnreadableFile, and then nothing is stored."""
    skipped: Counter[str] = Counter()
    trace_ids: set[bytes] = set()
    decoder = Decoder()
    with tempfile.SpooledTemporaryFile(_MAX_MEMORY_BYTES) as checked:
        try:
            spans = _validate_requests(decoder, read_trace_file(path, declared_format, skipped), checked, trace_ids)
        except UnreadableFile as error:
            raise UnreadableFile(f"{path}: {error}") from None
        if not spans:
            raise UnreadableFile(f"{path}: no spans in it{format_skipped(skipped)}")
        checked.seek(0)
        _store_requests(store, decoder, checked, f"{path}: of {spans} spans")
    return ImportSummary(spans, len(trace_ids), skipped)


def format_skipped(skipped: Counter[str]) -> str:
    """Say what documents were skipped: nothing, or what goes behind a sentence."""
    told = " and ".join(f"{count} of {kind}" for kind, count in sorted(skipped.items()) if count)
    return f"; {told} skipped".replace(" of ", " documents of ", 1) if told else ""


def _batch_requests(requests: Iterable[LocatedRequest]) -> Iterator[list[LocatedRequest]]:
    batch: list[LocatedRequest] = []
    size = 0
    for piece in requests:
        if batch and size + len(piece.body) > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(piece)
        size += len(piece.body)
    if batch:
        yield batch


def _validate_requests(
    decoder: Decoder, requests: Iterable[LocatedRequest], checked: IO[bytes], trace_ids: set[bytes]
) -> int:
    """Decode everything, and write it to `checked`; return how many spans there are."""
    spans = 0
    for batch in _batch_requests(requests):
        decoded = _decode_strictly(decoder, batch)
        spans += len(decoded.spans)
        trace_ids.update(pc.unique(decoded.spans["trace_id"].combine_chunks().storage).to_pylist())
        # requests laid end to end are one request
        write_delimited(checked, b"".join(piece.body for piece in batch))
    return spans


def _decode_strictly(decoder: Decoder, batch: list[LocatedRequest]) -> DecodedBatch:
    decoded = decoder.decode([piece.body for piece in batch])
    for piece, outcome in zip(batch, decoded.outcomes, strict=True):
        if not isinstance(outcome, ExportResult):
            raise UnreadableFile(piece.locate_problem(str(outcome)))
        if outcome.rejected_spans:
            raise UnreadableFile(piece.locate_problem(outcome.error_message))
    return decoded


def _store_requests(store: Store, decoder: Decoder, checked: IO[bytes], context: str) -> None:
    stored = 0
    for body in read_delimited(checked):
        decoded = decoder.decode([body])
        try:
            store.append(decoded)
        except StoreError as error:
            again = "; import the file again, what is there twice counts once" if stored else ""
            raise StoreError(f"{context}, {stored} are stored: {error}{again}") from error
        stored += len(decoded.spans)
