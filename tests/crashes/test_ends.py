"""The collector is killed, or told to stop, under load."""

from __future__ import annotations

import os
import secrets
import signal
import time
from pathlib import Path

from spanproof.tests.command import wait_until
from spanproof.tests.crashes.conftest import Serve
from spanproof.tests.crashes.sender import Sender, send_again

KILLS = int(os.environ.get("SPANPROOF_KILLS", "5"))


def test_kills_at_any_moment_lose_nothing_acknowledged(serve: Serve, sender: Sender, tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    for number in range(KILLS):
        running, address = serve(path)
        wanted = len(sender.acknowledged) + secrets.randbelow(2000)
        sending = sender.start(address)
        wait_until(lambda wanted=wanted: len(sender.acknowledged) >= wanted, "some traces are acknowledged")
        if number % 3 == 2:  # while it drains and writes its log into the file
            running.signal(signal.SIGTERM)
            running.wait(secrets.randbelow(300) / 1000)
        running.kill()
        sending.stop()
    running, address = serve(path)
    send_again(sender, address)
    running.stop()
    print(f"{KILLS} kills, {len(sender.acknowledged)} traces acknowledged, {len(sender.refusals)} requests sent again")
    assert len(sender.acknowledged) > KILLS
    sender.check(path)


def test_told_to_stop_under_load_it_drains_and_ends(serve: Serve, sender: Sender, tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    running, address = serve(path)
    sending = sender.start(address, workers=8)
    wait_until(lambda: len(sender.acknowledged) > 1000, "a thousand traces are acknowledged")
    begin = time.monotonic()
    running.signal(signal.SIGTERM)
    running.process.wait(30)
    took = time.monotonic() - begin
    sending.stop()
    assert (running.finish().code, took < 5) == (0, True), took
    sender.check(path)
    assert not path.with_name(path.name + ".wal").exists()


def test_what_is_sent_again_changes_nothing(serve: Serve, sender: Sender, tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    running, address = serve(path)
    sending = sender.start(address)
    wait_until(lambda: len(sender.acknowledged) > 200, "some traces are acknowledged")
    sending.stop()
    running.stop()
    sender.check(path)  # derives: the first ones are known when the others come
    running, address = serve(path)
    repeated = Sender()
    repeated.again.extend(sender.sent)
    send_again(repeated, address)
    running.stop()
    assert repeated.acknowledged == sender.acknowledged
    sender.check(path)
