"""The disk is full: what is sent is refused for now, and taken again once there is room."""

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
from spanproof.tests.crashes.sender import Sender, make_request, send_again

SMALL = 16 * 2**20
LARGE = 512 * 2**20


class SmallDisk:
    """A folder with little room: a file system in memory where we may mount one, else a limit on files of a process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        size = f"size={SMALL}"
        self.mounted = not subprocess.run(["mount", "-t", "tmpfs", "-o", size, "tmpfs", folder], check=False).returncode

    def limit(self, pid: int = 0) -> None:
        self._limit(pid, SMALL)

    def give_room(self, pid: int = 0) -> None:
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


def test_a_full_disk_refuses_until_there_is_room(serve: Serve, sender: Sender, small_disk: SmallDisk) -> None:
    path = small_disk.folder / "spans.duckdb"
    running, address = serve(path)
    small_disk.limit(running.pid)
    sending = sender.start(address)
    wait_until(lambda: len(sender.refusals) > 5, "the disk is full")
    taken = len(sender.acknowledged)
    assert taken > 0
    small_disk.give_room(running.pid)
    wait_until(lambda: len(sender.acknowledged) > taken + 100, "there is room again")
    sending.stop()
    send_again(sender, address)
    assert "the spans could not be stored" in sender.refusals[0]
    running.stop()
    sender.check(path)


def test_a_disk_full_of_log_is_survived_by_opening_the_file_again(small_disk: SmallDisk, caplog) -> None:
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

    # a small log is often moved into the file, and a failure there makes DuckDB give the database up
    with Store.open(path, settings={"checkpoint_threshold": "1MB"}) as store:
        small_disk.limit()
        reader = store.cursor()
        while append():
            pass
        assert not append()
        small_disk.give_room()
        wait_until(append, "there is room again")
        assert reader is not store.cursor()
        assert f"{path} was opened again" in caplog.messages
    sender.check(path)
