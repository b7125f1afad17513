-- The place of a span in its trace says also what most claims ask of the span itself. All is derived again.

DROP TABLE tree;
CREATE TABLE tree (
    trace_id   UUID NOT NULL,
    span_key   BIGINT NOT NULL,
    parent_key BIGINT,
    orphan     BOOLEAN NOT NULL,
    entry_key  BIGINT,
    is_entry   BOOLEAN NOT NULL,
    definite   BOOLEAN NOT NULL,
    depth      INTEGER NOT NULL,
    error      BOOLEAN NOT NULL,
    service      VARCHAR NOT NULL,
    name         VARCHAR NOT NULL,
    kind         INTEGER NOT NULL,
    start_ns     BIGINT NOT NULL,
    end_ns       BIGINT NOT NULL,
    resource_key UBIGINT NOT NULL
);

UPDATE derivation SET last_span_key = -1;
