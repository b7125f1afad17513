"""The end of the write-ahead log is damaged, as by a power failure during a write."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from spanproof.tests.crashes.conftest import Serve
from spanproof.tests.crashes.sender import Sender, resend_pending

BLOCK = 4096


def zero(log: Path) -> None:
    with log.open("r+b") as file:
        file.seek(-BLOCK, os.SEEK_END)
        file.write(bytes(BLOCK))


def scramble(log: Path) -> None:
    with log.open("r+b") as file:
        file.seek(-BLOCK, os.SEEK_END)
        file.write(os.urandom(BLOCK))


def flip_bit(log: Path) -> None:
    with log.open("r+b") as file:
        file.seek(-100, os.SEEK_END)
        (byte,) = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def truncate(log: Path) -> None:
    os.truncate(log, log.stat().st_size - BLOCK // 2)


@pytest.mark.parametrize("damage", [zero, scramble, flip_bit, truncate])
def test_damaged_log_end_loses_only_last_commit(
    serve: Serve, sender: Sender, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = tmp_path / "spans.duckdb"
    log = path.with_name("spans.duckdb.wal")
    running, address = serve(path)
    with grpc.insecure_channel(address) as channel:
        for _ in range(5):
            assert sender.send_one(channel)
    running.kill()
    # as if the last request had not been acknowledged
    body, traces = sender.acknowledged_requests.pop()
    sender.acknowledged.difference_update(traces)
    before = log.read_bytes()
    damage(log)
    damaged = log.read_bytes()
    assert damaged != before

    running, address = serve(path)  # it starts again
    sender.pending.append((body, traces))
    resend_pending(sender, address)
    running.stop()
    errors = running.finish().err
    if damage is not truncate:  # a truncated log looks like that of a killed writer
        (copy,) = tmp_path.glob("spans.duckdb.wal.damaged-*")
        assert copy.read_bytes() == damaged
        assert f"{log} is damaged at byte " in errors
        assert f"kept as {copy}" in errors
    sender.check(path)
