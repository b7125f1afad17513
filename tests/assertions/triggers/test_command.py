"""Commands with a trace context, until their trigger is closed."""

from __future__ import annotations

from pathlib import Path

import pytest

from spanproof.assertions.triggers.command import open_command
from spanproof.assertions.triggers.context import TraceContext, TriggerFailed
from spanproof.assertions.triggers.request import TriggerRequest
from spanproof.query_lang.check.constants import Bindings
from spanproof.query_lang.load.modules import load_module_text
from spanproof.query_lang.syntax import nodes as s


def test_closed_trigger_starts_no_command(tmp_path: Path) -> None:
    text = f'proof "p" {{\n  when run "touch {tmp_path}/started"\n  expect response.status == 0\n}}\n'
    (proof,) = load_module_text(text, Path("p.proof"), "p.proof").proofs
    (when,) = (each for each in s.walk(proof) if isinstance(each, s.When))
    with open_command(TriggerRequest(when, Bindings(), tmp_path)) as run:
        assert run(TraceContext()).status == 0
        (tmp_path / "started").unlink()
    with pytest.raises(TriggerFailed, match="the trigger is closed"):
        run(TraceContext())
    assert not (tmp_path / "started").exists()
