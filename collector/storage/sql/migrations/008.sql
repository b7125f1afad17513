-- Nesting, unfinished spans, calls in doubt, and learned addresses: the tables of calls are made anew, and everything is
-- derived again.
DROP VIEW next_traces;
DROP VIEW hops;
DROP TABLE attempts;
DROP TABLE calls;
ALTER TABLE topology ALTER COLUMN end_ns DROP NOT NULL;
ALTER TABLE rules ADD COLUMN edges VARCHAR[] DEFAULT [];
ALTER TABLE rules ADD COLUMN retried_calls VARCHAR[] DEFAULT [];
ALTER TABLE rules ADD COLUMN distinct_calls VARCHAR[] DEFAULT [];
ALTER TABLE rules ALTER COLUMN edges SET NOT NULL;
ALTER TABLE rules ALTER COLUMN retried_calls SET NOT NULL;
ALTER TABLE rules ALTER COLUMN distinct_calls SET NOT NULL;
UPDATE derivation SET last_span_key = -1;

CREATE TABLE attempts (
    trace_id          UUID NOT NULL,
    call_key          BIGINT NOT NULL,
    attempt_key       BIGINT NOT NULL,
    attempt           INTEGER,
    tier              UTINYINT NOT NULL,
    doubt             VARCHAR,
    shape             VARCHAR NOT NULL,
    caller            VARCHAR NOT NULL,
    callee            VARCHAR NOT NULL,
    operation         VARCHAR NOT NULL,
    address           VARCHAR,
    protocol          VARCHAR NOT NULL,
    async             BOOLEAN NOT NULL,
    caller_entry      BIGINT,
    callee_entry      BIGINT,
    client_key        BIGINT,
    server_key        BIGINT,
    wrapper_key       BIGINT,
    outer_wrapper_key BIGINT,
    start_ns          BIGINT NOT NULL,
    end_ns            BIGINT,
    duration_ns       BIGINT,
    network_ns        BIGINT,
    lag_ns            BIGINT,
    status            INTEGER NOT NULL,
    error             BOOLEAN NOT NULL,
    failed            BOOLEAN NOT NULL,
    responded         BOOLEAN,
    retryable         BOOLEAN NOT NULL,
    arrived           BOOLEAN NOT NULL,
    definite          BOOLEAN NOT NULL
);

CREATE TABLE calls (
    trace_id          UUID NOT NULL,
    call_key          BIGINT NOT NULL,
    attempts          INTEGER NOT NULL,
    tier              UTINYINT NOT NULL,
    doubt             VARCHAR,
    shape             VARCHAR NOT NULL,
    caller            VARCHAR NOT NULL,
    callee            VARCHAR NOT NULL,
    operation         VARCHAR NOT NULL,
    protocol          VARCHAR NOT NULL,
    async             BOOLEAN NOT NULL,
    caller_entry      BIGINT,
    callee_entry      BIGINT,
    client_key        BIGINT,
    server_key        BIGINT,
    wrapper_key       BIGINT,
    outer_wrapper_key BIGINT,
    start_ns          BIGINT NOT NULL,
    end_ns            BIGINT,
    duration_ns       BIGINT,
    network_ns        BIGINT,
    lag_ns            BIGINT,
    status            INTEGER NOT NULL,
    error             BOOLEAN NOT NULL,
    failed            BOOLEAN NOT NULL,
    retryable         BOOLEAN NOT NULL,
    over_ns           BIGINT,
    kept_apart        VARCHAR,
    definite          BOOLEAN NOT NULL
);

CREATE TABLE separate_attempts AS FROM attempts;
CREATE TABLE separate_calls AS FROM calls;

CREATE TABLE answers (
    address_key VARCHAR NOT NULL,
    service     VARCHAR NOT NULL
);

CREATE VIEW next_traces AS
SELECT a.trace_id AS from_trace_id, t.trace_id
FROM attempts a JOIN topology t ON t.span_key = a.callee_entry
WHERE a.async AND t.trace_id <> a.trace_id
UNION
SELECT t.trace_id, c.trace_id
FROM continuations c JOIN topology t ON t.span_key = c.continued_key
WHERE t.trace_id <> c.trace_id;

CREATE VIEW hops AS
FROM attempts
UNION ALL
SELECT a.* REPLACE (c.continued_key AS caller_entry)
FROM attempts a JOIN continuations c ON c.entry_key = a.caller_entry;
