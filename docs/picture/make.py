"""Draws the picture of a failing proof in README from what `spanproof run` prints.

The trace is a recorded checkout of the demo shop, in which `orders` still calls the legacy inventory. A test draws the
picture again and compares, so that it shows what the current version prints.
"""

from __future__ import annotations

import re
import sys
from io import StringIO
from pathlib import Path

from msgspec.structs import replace
from rich.console import Console

from spanproof.assertions.reports.terminal import TerminalReport
from spanproof.assertions.run.events import ProofFinished, RunEvent, RunFinished
from spanproof.assertions.run.runner import Runner
from spanproof.collector.formats.import_file import import_file
from spanproof.collector.storage.store import Store
from spanproof.query_lang.load.modules import load_module

FOLDER = Path(__file__).parent
PICTURE = FOLDER.parent / "failing-proof.svg"
WIDTH = 104
ELAPSED_NS = 100_000_000  # in place of the time that this machine takes


def draw() -> str:
    """Return the picture as SVG."""
    console = Console(record=True, width=WIDTH, file=StringIO(), force_terminal=True, highlight=False, soft_wrap=True)
    report = TerminalReport(console)

    def emit(event: RunEvent) -> None:
        if isinstance(event, ProofFinished | RunFinished):  # the others are shown while a run goes on, and then erased
            report(replace(event, duration_ns=ELAPSED_NS))

    module = load_module(FOLDER / "checkout.proof", "checkout.proof")
    with Store.open() as store:
        import_file(store, FOLDER / "trace.jsonl", None)
        Runner(store, emit).run([(module, proof) for proof in module.proofs])
    report.close()
    svg = console.export_svg(title="spanproof run checkout.proof")
    return re.sub(r"@font-face \{[^}]*\}\s*", "", svg)  # no font is fetched from another host


if __name__ == "__main__":
    PICTURE.write_text(draw(), encoding="utf-8")
    sys.stdout.write(f"{PICTURE} is drawn\n")
