"""The collector is killed or stopped under load."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path

from spanproof.tests.command import wait_until
from spanproof.tests.crashes.conftest import Serve
from spanproof.tests.crashes.sender import Sender, resend_pending

KILLS = int(os.environ.get("TESTS_KILLS", "5"))


def test_kill_loses_no_acknowledged_trace(serve: Serve, sender: Sender, tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    for number in range(KILLS):
        running, address = serve(path)
        wanted = len(sender.acknowledged) + secrets.randbelow(2000)
        threads = sender.start(address)
        wait_until(lambda wanted=wanted: len(sender.acknowledged) >= wanted, "some traces are acknowledged")
        if number % 3 == 2:  # while it drains the queue and writes its log into the file
            running.signal(signal.SIGTERM)
            running.wait(secrets.randbelow(300) / 1000)
        running.kill()
        threads.stop()
    running, address = serve(path)
    resend_pending(sender, address)
    running.stop()
    print(f"{KILLS} kills, {len(sender.acknowledged)} traces acknowledged, {len(sender.errors)} requests sent again")
    assert len(sender.acknowledged) > KILLS
    sender.check(path)


def test_stop_under_load_drains_queue(serve: Serve, sender: Sender, tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    running, address = serve(path)
    threads = sender.start(address, workers=8)
    wait_until(lambda: len(sender.acknowledged) > 1000, "a thousand traces are acknowledged")
    started_at = time.monotonic()
    running.signal(signal.SIGTERM)
    running.process.wait(30)
    duration_s = time.monotonic() - started_at
    threads.stop()
    assert (running.finish().code, duration_s < 5) == (0, True), duration_s
    sender.check(path)
    assert not path.with_name(path.name + ".wal").exists()


def test_resent_traces_change_nothing(serve: Serve, sender: Sender, tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    running, address = serve(path)
    threads = sender.start(address)
    wait_until(lambda: len(sender.acknowledged) > 200, "some traces are acknowledged")
    threads.stop()
    running.stop()
    sender.check(path)  # check also derives calls, so the first spans are derived before the repeated ones arrive
    running, address = serve(path)
    repeated = Sender()
    repeated.pending.extend(sender.acknowledged_requests)
    resend_pending(repeated, address)
    running.stop()
    assert repeated.acknowledged == sender.acknowledged
    sender.check(path)
