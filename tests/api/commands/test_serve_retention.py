"""How long a server keeps traces, and within how much room."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from spanproof.api.commands.serve import read_memory_bytes, read_retention_limits
from spanproof.bench.spans import make_requests
from spanproof.collector.traces.retention import RetentionLimits
from spanproof.tests.command import DEADLINE_S, FREE, FREE_PORTS, Finished, Running, find_address


@pytest.mark.parametrize(
    ("size", "read"),
    [("500MB", 500 * 10**6), ("1.5GiB", 3 * 2**29), ("10 GB", 10**10), ("67108864B", 2**26), ("70000kB", 7 * 10**7)],
)
def test_sizes(size: str, read: int) -> None:
    assert read_retention_limits(None, size, "spans.duckdb") == RetentionLimits(None, read)


def test_ages() -> None:
    assert read_retention_limits("7d", None, ":memory:") == RetentionLimits(7 * 86_400 * 10**9, None)


@pytest.mark.parametrize(
    ("keep_for", "keep_below", "db", "said"),
    [
        ("soon", None, "spans.duckdb", "--keep-for: "),
        ("0s", None, "spans.duckdb", "--keep-for: 0s keeps nothing"),
        ("-1d", None, "spans.duckdb", "--keep-for: -1d keeps nothing"),
        (None, "10", "spans.duckdb", "--keep-below: '10' is not a size; write one such as 500MB, 10GB or 8GiB"),
        (None, "10gb", "spans.duckdb", "--keep-below: '10gb' is not a size"),
        (None, "1MB", "spans.duckdb", "--keep-below: 1MB is too small, the minimum is 64MiB"),
        (None, "1GB", ":memory:", "--keep-below needs a file"),
    ],
)
def test_what_cannot_be_kept_to_is_refused(keep_for: str | None, keep_below: str | None, db: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read_retention_limits(keep_for, keep_below, db)


@pytest.mark.parametrize(
    ("memory", "said"),
    [("lots", "--memory: 'lots' is not a size"), ("1MB", "--memory: 1MB is too small, the minimum is 128MB")],
)
def test_what_cannot_be_the_memory_is_refused(memory: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        read_memory_bytes(memory)


def test_the_command_says_so_in_a_line(spanproof: Callable[..., Finished], tmp_path: Path) -> None:
    finished = spanproof("serve", *FREE_PORTS, "--api", FREE, "--keep-for", "0s")
    assert (finished.code, finished.out, finished.err) == (2, "", "spanproof: --keep-for: 0s keeps nothing\n")
    assert not list(tmp_path.iterdir())


def test_a_server_forgets_while_it_takes_more_in(start: Callable[..., Running], tmp_path: Path) -> None:
    serving = start("serve", "--db", tmp_path / "spans.duckdb", *FREE_PORTS, "--api", FREE, "--keep-for", "300ms")
    line = serving.read_line()
    body = next(make_requests(8, templates=1))
    deadline = time.monotonic() + DEADLINE_S
    forgotten = 0.0
    with httpx.Client(trust_env=False) as client:
        while forgotten < 16 and time.monotonic() < deadline:  # it goes more than once
            sent = client.post(
                f"http://{find_address(line, 'OTLP/HTTP')}/v1/traces",
                content=body,
                headers={"content-type": "application/x-protobuf"},
            )
            assert sent.status_code == 200
            time.sleep(0.5)
            told = client.get(f"http://{find_address(line, 'API')}/metrics").text
            found = [each for each in told.splitlines() if each.startswith("spanproof_spans_forgotten_total{")]
            forgotten = float(found[0].split()[-1]) if found else 0.0
    assert forgotten >= 16
