"""The options that say how proofs are carried out, and what is reported of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from spanproof.assertions.run.env_file import read_env_file
from spanproof.assertions.run.settings import read_variables
from spanproof.query_lang.check.secrets import Secrets

ReportOption = Annotated[
    list[str] | None,
    typer.Option(
        "--report",
        metavar="FORM=FILE,…",
        envvar="SPANPROOF_REPORT",
        help="Write reports: junit=FILE, json=FILE, html=FILE, github; may be repeated.",
    ),
]


@dataclass(frozen=True, slots=True)
class RunOptionGroup:
    """How a command carries out proofs; each field is an option of it."""

    fail_fast: Annotated[
        bool, typer.Option("--fail-fast", help="Begin no other proof after the first that does not pass.")
    ] = False
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", envvar="SPANPROOF_WORKERS", help="Carry out so many proofs at a time.")
    ] = 1
    retries: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            envvar="SPANPROOF_RETRIES",
            help="Try a proof that does not pass up to N times more; if it then passes, it is flaky.",
        ),
    ] = 0
    fail_on_flaky: Annotated[bool, typer.Option("--fail-on-flaky", help="Leave with 1 if a proof is flaky.")] = False
    inconclusive: Annotated[
        str, typer.Option(metavar="pass|fail|keep", help="What an inconclusive proof counts as in the exit code.")
    ] = "keep"
    report: ReportOption = None
    var: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Set a `let` from outside; may be repeated.")
    ] = None
    secret: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="The same, but the value is masked wherever it would be shown."),
    ] = None
    env_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="What `env` finds besides the environment, which goes first: NAME=VALUE."),
    ] = None
    watch: Annotated[bool, typer.Option("--watch", help="Stay, and carry out again what is saved, until stopped.")] = (
        False
    )

    def read_variables(self) -> tuple[dict[str, str], Secrets]:
        """Read the variables and which values are secret; put the file into the environment. Raises ValueError."""
        if self.inconclusive not in ("pass", "fail", "keep"):
            raise ValueError(f"--inconclusive is pass, fail or keep, not {self.inconclusive!r}")
        variables, secrets = read_variables(self.var or (), self.secret or ())
        for name, value in read_env_file(self.env_file).items() if self.env_file else ():
            os.environ.setdefault(name, value)
        return variables, secrets
