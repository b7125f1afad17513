-- Runs of proofs, and the outcome of each proof in them (see assertions/reports/history.py).
CREATE TABLE runs (
    run_id     VARCHAR NOT NULL,
    origin     VARCHAR NOT NULL,
    started_ns BIGINT NOT NULL,
    ended_ns   BIGINT,
    outcome    VARCHAR
);

CREATE TABLE run_proofs (
    run_id      VARCHAR NOT NULL,
    place       INTEGER NOT NULL,
    started_ns  BIGINT NOT NULL,
    name        VARCHAR NOT NULL,
    path        VARCHAR NOT NULL,
    outcome     VARCHAR NOT NULL,
    duration_ns BIGINT NOT NULL,
    failures    VARCHAR[] NOT NULL,
    document    VARCHAR NOT NULL
);

-- Add the span columns that most claims read to the position of the span in its trace. Derive everything again.

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
