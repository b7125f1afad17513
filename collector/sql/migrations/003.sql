-- Runs of proofs, and what became of each proof in them (see assertions/history.py).
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
