from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from spanproof.collector.otlp.decoder import Decoder
from spanproof.collector.storage.schema import SCHEMA_VERSION
from spanproof.collector.storage.store import Store
from spanproof.collector.user_errors import StoreError
from spanproof.tests.collector.exported import export_request

SCHEMAS = Path(__file__).parent / "schemas"
# rows of a store with schema 1: a span with attributes, an event and a link, and a span without them
SCHEMA_1_ROWS = """
INSERT INTO resources VALUES (7, 'orders', MAP {'service.name': 'orders', 'replicas': '2'}, 'si', 0, '[]', '');
INSERT INTO scopes VALUES (8, 'tests', '1.0', MAP {}, '', 0, '');
INSERT INTO spans VALUES
    (1, 5, '01010101-0101-0101-0101-010101010101', 1, NULL, '', 0, 'orders', 'first', 2, 1000, 2000, 2, 'broken',
     MAP {'a': 'b', 'ok': 'true', 'tags': chr(1) || 'a[{"stringValue":"x"}]'}, 'sba', 1,
     [{time_ns: 1500, name: 'happened', attributes: MAP {'n': '3'}, attribute_kinds: 'i', dropped_attributes_count: 2}],
     0,
     [{trace_id: '02020202-0202-0202-0202-020202020202', span_id: 9, trace_state: 'k=v', flags: 1,
       attributes: MAP {'why': 'test'}, attribute_kinds: 's', dropped_attributes_count: 0}],
     0, 7, 8),
    (2, 5, '01010101-0101-0101-0101-010101010101', 2, 1, '', 0, 'orders', 'second', 1, 1100, 1900, 0, '',
     MAP {}, '', 0, [], 0, [], 0, 7, 8);
INSERT INTO triggers VALUES ('01010101-0101-0101-0101-010101010101', 3);
CREATE TABLE meta (schema_version INTEGER NOT NULL);
INSERT INTO meta VALUES (1);
"""
LAYOUT = "SELECT table_name, column_name, data_type, is_nullable FROM duckdb_columns() ORDER BY ALL"


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    path = tmp_path / "spans.duckdb"
    with duckdb.connect(str(path)) as connection:
        connection.execute((SCHEMAS / "1.sql").read_text())
        connection.execute(SCHEMA_1_ROWS)
    return path


def set_version(path: Path, version: int) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("UPDATE meta SET schema_version = ?", [version])


def test_older_store_is_migrated_without_loss(old_file: Path, make_request) -> None:
    for _ in range(2):  # the second time, it is already migrated
        with Store.open(old_file) as store:
            (resource_spans,) = export_request(store, "01" * 16).resource_spans
            assert [(each.key, each.value.WhichOneof("value")) for each in resource_spans.resource.attributes] == [
                ("service.name", "string_value"),
                ("replicas", "int_value"),
            ]
            first, second = resource_spans.scope_spans[0].spans
            assert [each.key for each in first.attributes] == ["a", "ok", "tags"]
            assert first.attributes[2].value.array_value.values[0].string_value == "x"
            assert (first.events[0].attributes[0].value.int_value, first.events[0].dropped_attributes_count) == (3, 2)
            assert (first.links[0].attributes[0].key, first.links[0].trace_state) == ("why", "k=v")
            assert (second.name, len(second.attributes), second.parent_span_id) == ("second", 0, b"\0" * 7 + b"\1")
    with Store.open(old_file) as store:
        store.append(Decoder().decode([make_request(3).SerializeToString()]))
        with store.cursor() as cursor:
            assert cursor.execute("SELECT span_key FROM spans ORDER BY 1").fetchall() == [(1,), (2,), (3,), (4,), (5,)]
            assert cursor.execute("SELECT count(*) FROM triggers").fetchall() == [(1,)]


def test_migration_marks_missing_values(old_file: Path) -> None:
    with duckdb.connect(str(old_file)) as connection:
        connection.execute(
            "INSERT INTO spans SELECT * REPLACE (4 AS span_key, MAP {'nan': 'nan', 'none': '', 'text': 'nan'} AS"
            " attributes, 'dns' AS attribute_kinds, [{time_ns: 1, name: 'e', attributes: MAP {'nan': 'nan'},"
            " attribute_kinds: 'd', dropped_attributes_count: 0}] AS events) FROM spans WHERE span_key = 1"
        )
    sql = (
        "SELECT attributes.texts, events[1].attributes.texts, links[1].attributes.texts,"
        """ attribute_texts(chr(1) || 'a[{},{"doubleValue":"NaN"},{"intValue":"3"}]') FROM spans ORDER BY span_key"""
    )
    with Store.open(old_file) as store, store.cursor() as cursor:
        rows = cursor.execute(sql).fetchall()
    assert rows[0][:3] == (["b", "true", '\x01a[{"stringValue":"x"}]'], ["3"], ["test"])
    assert rows[2] == ([None, None, "nan"], [None], ["test"], [None, None, "3"])


def test_migrated_store_has_schema_of_new_store(old_file: Path) -> None:
    with Store.open() as new, Store.open(old_file) as migrated:
        assert migrated.cursor().execute(LAYOUT).fetchall() == new.cursor().execute(LAYOUT).fetchall()


def test_failed_migration_changes_nothing(old_file: Path) -> None:
    with duckdb.connect(str(old_file)) as connection:
        connection.execute("ALTER TABLE scopes DROP attributes")
    with pytest.raises(duckdb.Error):
        Store.open(old_file)
    with duckdb.connect(str(old_file)) as connection:
        assert connection.execute("FROM meta").fetchall() == [(1,)]
        assert connection.execute("SELECT attributes['a'] FROM spans WHERE span_key = 1").fetchall() == [("b",)]


def test_newer_store_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "spans.duckdb"
    Store.open(path).close()
    set_version(path, SCHEMA_VERSION + 1)
    with pytest.raises(StoreError) as error:
        Store.open(path)
    assert str(error.value) == (
        f"{path} was written by a newer spanproof (schema {SCHEMA_VERSION + 1}, this one has {SCHEMA_VERSION}); "
        "upgrade spanproof or name another file"
    )


def test_store_with_unknown_version_is_rejected(old_file: Path) -> None:
    set_version(old_file, 0)
    with pytest.raises(StoreError, match=r"an unknown spanproof \(schema 0, this one has \d+\); name another file"):
        Store.open(old_file)
