"""On a full disk, requests are rejected as retryable, and accepted once there is room."""

from __future__ import annotations

import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.store import Store
from spanproof.collector.user_errors import StoreUnavailable
from spanproof.tests.command import wait_until
from spanproof.tests.crashes.conftest import Serve
from spanproof.tests.crashes.sender import Sender, make_request, resend_pending

SMALL = 16 * 2**20
LARGE = 512 * 2**20


class SmallDisk:
    """A folder with little room: a mounted file system in memory if permitted, else a limit on the file size."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        size = f"size={SMALL}"
        self.mounted = not subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=False).returncode

    def limit(self, pid: int = 0) -> None:
        self._limit(pid, SMALL)

    def remove_limit(self, pid: int = 0) -> None:
        if self.mounted:
            subprocess.run(["mount", "-o", f"remount,size={LARGE}", self.folder], check=True)
        self._limit(pid, resource.RLIM_INFINITY)

    def _limit(self, pid: int, size: int) -> None:
        if not self.mounted:
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    def close(self) -> None:
        self._limit(0, resource.RLIM_INFINITY)
        if self.mounted:
            subprocess.run(["umount", self.folder], check=True)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[SmallDisk]:
    folder = tmp_path / "small"
    folder.mkdir()
    disk = SmallDisk(folder)
    print("a mounted file system" if disk.mounted else "a limit on the size of files")
    yield disk
    disk.close()


def test_full_disk_rejects_until_it_has_room(serve: Serve, sender: Sender, small_disk: SmallDisk) -> None:
    path = small_disk.folder / "spans.duckdb"
    running, address = serve(path)
    small_disk.limit(running.pid)
    threads = sender.start(address)
    wait_until(lambda: len(sender.errors) > 5, "the disk is full")
    acknowledged_before = len(sender.acknowledged)
    assert acknowledged_before > 0
    small_disk.remove_limit(running.pid)
    wait_until(lambda: len(sender.acknowledged) > acknowledged_before + 100, "there is room again")
    threads.stop()
    resend_pending(sender, address)
    assert "the spans could not be stored" in sender.errors[0]
    running.stop()
    sender.check(path)


def test_full_log_is_recovered_by_reopening(small_disk: SmallDisk, caplog) -> None:
    sender = Sender()
    path = small_disk.folder / "spans.duckdb"
    decoder = Decoder()

    def append() -> bool:
        body, traces = make_request(800)
        try:
            store.append(decoder.decode([body]))
        except StoreUnavailable:
            return False
        sender.acknowledged.update(traces)
        return True

    # with a small threshold, DuckDB often moves the log into the file; a failure there invalidates the database
    with Store.open(path, settings={"checkpoint_threshold": "1MB"}) as store:
        small_disk.limit()
        reader = store.cursor()
        while append():
            pass
        assert not append()
        small_disk.remove_limit()
        wait_until(append, "there is room again")
        assert reader is not store.cursor()
        assert f"{path} was reopened" in caplog.messages
    sender.check(path)
