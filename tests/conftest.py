from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from spanproof.tests.command import Finished, Running, Service, open_service

Starter = Callable[..., Running]
Command = Callable[..., Finished]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Starter]:
    """Return a function that starts `spanproof` in an empty folder; processes still running at the end are stopped."""
    started: list[Running] = []

    def start(*arguments: object, cold: bool = False, **env: str) -> Running:
        started.append(Running(arguments, tmp_path, env, cold=cold))
        return started[-1]

    yield start
    for running in started:
        running.close()


@pytest.fixture
def spanproof(start: Starter) -> Command:
    """Return a function that runs `spanproof` to its end."""
    return lambda *arguments, **env: start(*arguments, **env).finish()


@pytest.fixture
def service() -> Iterator[Service]:
    with open_service() as service:
        yield service
