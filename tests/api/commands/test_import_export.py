"""`spanproof import` and `spanproof export`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from spanproof.tests.command import FREE, FREE_PORTS, Finished, Running

Command = Callable[..., Finished]
Starter = Callable[..., Running]
TRACES = Path(__file__).parents[2] / "traces"
DEMO, KAFKA = TRACES / "oteldemo" / "test_data.json.gz", TRACES / "zipkin-lens" / "messaging-kafka.json"
KAFKA_ID = "00000000000000000562809467078eab"
DB = ("--db", "spans.duckdb")


def test_imported_spans_are_exported(spanproof: Command, tmp_path: Path) -> None:
    ran = spanproof("import", DEMO, KAFKA, *DB)
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (
        f"{DEMO}: 547 spans of 141 traces; 16 documents of logs and 40 of metrics skipped\n"
        f"{KAFKA}: 28 spans of 1 trace\n"
    )
    assert "on-message" in spanproof("trace", KAFKA_ID, *DB).out
    for name in ("all.jsonl", "all.pb", "all.parquet"):
        ran = spanproof("export", name, *DB)
        assert (ran.code, ran.out, ran.err) == (0, "", f"{name}: 575 spans of 142 traces\n")
    ran = spanproof("export", "all.pb", *DB)
    assert (ran.code, ran.err) == (2, "spanproof: all.pb exists; --force replaces it\n")
    ran = spanproof("export", "-", "--trace", KAFKA_ID.upper(), *DB)
    assert (ran.code, ran.err) == (0, "standard output: 28 spans of 1 trace\n")
    (tmp_path / "printed").write_text(ran.out)
    ran = spanproof("import", "printed", "all.pb", "--db", "other.duckdb")
    assert ran.out == "printed: 28 spans of 1 trace\nall.pb: 575 spans of 142 traces\n"


def test_trace_is_exported_as_case(spanproof: Command, tmp_path: Path) -> None:
    spanproof("import", KAFKA, *DB)
    ran = spanproof("export", "kafka.case", "--trace", KAFKA_ID, *DB)
    assert (ran.code, ran.err) == (0, "kafka.case: 28 spans of 1 trace\n")
    text = (tmp_path / "kafka.case").read_text()
    assert text.count("\n    servicea ") == 3
    assert spanproof("case", "kafka.case").out == "1 file, 0 verdicts, 0 differences\n"
    (tmp_path / "kafka.case").write_text(text.replace("# assert", "assert").replace("#   pass", "  pass"))
    assert spanproof("case", "kafka.case").out == "1 file, 6 verdicts, 0 differences\n"
    ran = spanproof("export", "-", "--format", "case", "--trace", KAFKA_ID, *DB)
    assert (ran.code, ran.out) == (0, text)
    ran = spanproof("export", "all.case", *DB)
    assert (ran.code, ran.err) == (2, "spanproof: a case file has single traces; select them with --trace\n")


def test_unknown_fields_are_reported_once_if_lenient(spanproof: Command, tmp_path: Path) -> None:
    span = {"traceId": "1", "timestamp": 5, "duration": 1, "colour": "red"}
    (tmp_path / "spans.json").write_text(json.dumps([span | {"id": "2"}, span | {"id": "3"}]))
    ran = spanproof("import", "spans.json", *DB)
    assert (ran.code, ran.out) == (2, "")
    assert "spans.json: [0].colour: unknown field; its content would be lost; nothing of it is stored" in ran.err
    ran = spanproof("import", "spans.json", "--lenient", *DB)
    assert (ran.code, ran.out) == (0, "spans.json: 2 spans of 1 trace\n")
    assert ran.err == "spanproof: spans.json: [].colour: unknown field, ignored 2 times\n"


def test_rejected_file_does_not_block_others(spanproof: Command, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text('{"data": [{"spans": [{}]}]}')
    ran = spanproof("import", "bad.json", "missing.json", KAFKA, *DB)
    assert (ran.code, ran.out) == (2, f"{KAFKA}: 28 spans of 1 trace\n")
    assert ran.err == (
        "spanproof: bad.json: data[0].spans[0].processID: a text is expected; nothing of it is stored\n"
        "spanproof: missing.json: No such file or directory; nothing of it is stored\n"
    )


def test_store_in_use_is_named_with_its_process(start: Starter, spanproof: Command) -> None:
    server = start("serve", *FREE_PORTS, "--api", FREE, *DB)
    server.read_line()
    for arguments in (("import", KAFKA), ("export", "all.pb")):
        ran = spanproof(*arguments, *DB)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == f"spanproof: spans.duckdb is in use by process {server.pid}; stop it or name another file\n"


def test_invalid_options_are_rejected(spanproof: Command) -> None:
    ran = spanproof("import", KAFKA, "--format", "csv", *DB)
    assert (ran.code, ran.err) == (
        2, "spanproof: --format is one of otlp-json, otlp-proto, jaeger, zipkin, not 'csv'\n",
    )  # fmt: skip
    assert spanproof("export", "a.pb", *DB).err == "spanproof: spans.duckdb: no such file\n"
    spanproof("import", KAFKA, *DB)
    ran = spanproof("export", "a.pb", "--trace", "12", *DB)
    assert (ran.code, ran.err) == (2, "spanproof: --trace: '12' is not a trace id; a trace id has 32 hex digits\n")
    ran = spanproof("export", "spans.duckdb", "--format", "parquet", "--force", *DB)
    assert (ran.code, ran.err) == (2, "spanproof: spans.duckdb is the store itself; name another file\n")


def test_closed_pipe_causes_no_traceback(spanproof: Command, start: Starter) -> None:
    spanproof("import", *[DEMO] * 4, *DB)  # exceeds the buffer of a pipe
    printing = start("export", "-", *DB)
    assert printing.process.stdout is not None
    printing.process.stdout.read(10)
    printing.process.stdout.close()
    assert printing.wait(30)
    assert printing.process.stderr is not None
    assert printing.process.stderr.read() == b"spanproof: standard output was closed before all was written\n"
