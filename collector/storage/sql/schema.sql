-- Spans as they came (`spans`, `resources`, `scopes`), and what is derived from them
-- (`traces`, `tree`, `exchanges`, `calls`, `entry_links`, `continuations`). Derived tables hold nothing that cannot be made again.
--
-- Attributes are two lists of one length, in the order sent, each key once: no MAP, as DuckDB would look for
-- doubled keys in each, at several times the cost of all else. `attribute_kinds` holds one letter per attribute,
-- in that order, so that no type is lost:
--   s string   b bool ("true", "false")   i int   d double   y bytes (base64)
--   a array and k kvlist (both as the OTLP/JSON text of the AnyValue's content)   n no value ("")
-- The text of an `a`, `k` or `y` value is preceded by U+0001 and its letter. A string that itself begins
-- with U+0001 is preceded by U+0001 and `s`. So a text without U+0001 can be compared as it stands.

CREATE TABLE resources (
    resource_key             UBIGINT NOT NULL,  -- hash of the content
    service                  VARCHAR NOT NULL,  -- service.name, else 'unknown_service'
    attributes               STRUCT(keys VARCHAR[], texts VARCHAR[]) NOT NULL,
    attribute_kinds          VARCHAR NOT NULL,
    dropped_attributes_count UINTEGER NOT NULL,
    entity_refs              VARCHAR NOT NULL,  -- OTLP/JSON, '[]' where there are none
    schema_url               VARCHAR NOT NULL
);

CREATE TABLE scopes (
    scope_key                UBIGINT NOT NULL,  -- hash of the content
    name                     VARCHAR NOT NULL,
    version                  VARCHAR NOT NULL,
    attributes               STRUCT(keys VARCHAR[], texts VARCHAR[]) NOT NULL,
    attribute_kinds          VARCHAR NOT NULL,
    dropped_attributes_count UINTEGER NOT NULL,
    schema_url               VARCHAR NOT NULL
);

CREATE TABLE spans (
    span_key                 BIGINT NOT NULL,   -- grows with arrival; unique in this store
    arrived_ns               BIGINT NOT NULL,   -- when the collector took it in, Unix time
    trace_id                 UUID NOT NULL,     -- the 16 bytes as they are
    span_id                  UBIGINT NOT NULL,  -- the 8 bytes, big-endian
    parent_id                UBIGINT,           -- NULL for a root
    trace_state              VARCHAR NOT NULL,
    flags                    UINTEGER NOT NULL,
    service                  VARCHAR NOT NULL,
    name                     VARCHAR NOT NULL,
    kind                     INTEGER NOT NULL,  -- OTLP SpanKind: 1 internal 2 server 3 client 4 producer 5 consumer
    start_ns                 BIGINT NOT NULL,   -- Unix time
    end_ns                   BIGINT NOT NULL,
    status                   INTEGER NOT NULL,  -- OTLP StatusCode: 0 unset 1 ok 2 error
    status_message           VARCHAR NOT NULL,
    attributes               STRUCT(keys VARCHAR[], texts VARCHAR[]) NOT NULL,
    attribute_kinds          VARCHAR NOT NULL,
    dropped_attributes_count UINTEGER NOT NULL,
    events                   STRUCT(
        time_ns BIGINT,
        name VARCHAR,
        attributes STRUCT(keys VARCHAR[], texts VARCHAR[]),
        attribute_kinds VARCHAR,
        dropped_attributes_count UINTEGER
    )[] NOT NULL,
    dropped_events_count     UINTEGER NOT NULL,
    links                    STRUCT(
        trace_id UUID,
        span_id UBIGINT,
        trace_state VARCHAR,
        flags UINTEGER,
        attributes STRUCT(keys VARCHAR[], texts VARCHAR[]),
        attribute_kinds VARCHAR,
        dropped_attributes_count UINTEGER
    )[] NOT NULL,
    dropped_links_count      UINTEGER NOT NULL,
    resource_key             UBIGINT NOT NULL,
    scope_key                UBIGINT NOT NULL
);

-- Requests sent by spanproof itself: their spans' parents, which nobody exports.
CREATE TABLE triggers (
    trace_id UUID NOT NULL,
    span_id  UBIGINT NOT NULL
);

-- One row per trace: where its spans are, so that nobody looks for them among all others.
CREATE TABLE traces (
    trace_id  UUID NOT NULL,
    first_key BIGINT NOT NULL,    -- span_key of the first that came
    last_key  BIGINT NOT NULL
);

-- One row per span: where it stands in its trace.
CREATE TABLE tree (
    trace_id   UUID NOT NULL,
    span_key   BIGINT NOT NULL,
    parent_key BIGINT,            -- NULL: a root, or the parent is not here
    orphan     BOOLEAN NOT NULL,  -- it names a parent that is not here
    entry_key  BIGINT,            -- the entry span it belongs to: itself, or the nearest one above in its service
    is_entry   BOOLEAN NOT NULL,
    definite   BOOLEAN NOT NULL,  -- no span still to come can change entry_key and is_entry
    depth      INTEGER NOT NULL,  -- 0 for a root or an orphan
    error      BOOLEAN NOT NULL,
    -- of the span itself, so that what most claims ask needs no join
    service      VARCHAR NOT NULL,
    name         VARCHAR NOT NULL,
    kind         INTEGER NOT NULL,
    start_ns     BIGINT NOT NULL,
    end_ns       BIGINT NOT NULL,
    resource_key UBIGINT NOT NULL
);

-- One row per exchange between a caller and a callee, in any of the four shapes.
CREATE TABLE exchanges (
    trace_id     UUID NOT NULL,
    call_key     BIGINT NOT NULL,   -- of its logical call
    exchange_key BIGINT NOT NULL,   -- hash of the two span keys
    attempt      INTEGER,           -- from 1; NULL: no attempt of its own (a redirect followed out of sight)
    tier         UTINYINT NOT NULL, -- evidence that attempts belong together: 1 explicit, 2 arrivals, 3 inferred, 0 single
    shape        VARCHAR NOT NULL,  -- paired, unpaired, bare, message
    caller       VARCHAR NOT NULL,
    callee       VARCHAR NOT NULL,
    operation    VARCHAR NOT NULL,
    address      VARCHAR,           -- host:port as the caller knows it
    protocol     VARCHAR NOT NULL,  -- http, rpc, db, messaging, other
    async        BOOLEAN NOT NULL,
    caller_entry BIGINT,
    callee_entry BIGINT,            -- NULL where the callee sent no span
    client_key   BIGINT,            -- NULL for the bare shape
    server_key   BIGINT,
    start_ns     BIGINT NOT NULL,
    end_ns       BIGINT NOT NULL,
    duration_ns  BIGINT NOT NULL,
    network_ns   BIGINT,
    lag_ns       BIGINT,
    status       INTEGER NOT NULL,
    error        BOOLEAN NOT NULL,
    retryable    BOOLEAN NOT NULL,  -- failed in a way that is worth another try
    arrived      BOOLEAN NOT NULL,  -- seen at the callee alone (tier 2): times, status and error are the callee's
    definite     BOOLEAN NOT NULL
);

-- One row per logical call: one or more attempts at the same thing. The fields are the last attempt's;
-- start_ns and duration_ns reach from the first attempt's start to the last one's end.
CREATE TABLE calls (
    trace_id     UUID NOT NULL,
    call_key     BIGINT NOT NULL,
    attempts     INTEGER NOT NULL,
    tier         UTINYINT NOT NULL,
    shape        VARCHAR NOT NULL,
    caller       VARCHAR NOT NULL,
    callee       VARCHAR NOT NULL,
    operation    VARCHAR NOT NULL,
    protocol     VARCHAR NOT NULL,
    async        BOOLEAN NOT NULL,
    caller_entry BIGINT,
    callee_entry BIGINT,
    client_key   BIGINT,
    server_key   BIGINT,
    start_ns     BIGINT NOT NULL,
    end_ns       BIGINT NOT NULL,
    duration_ns  BIGINT NOT NULL,
    network_ns   BIGINT,
    lag_ns       BIGINT,
    status       INTEGER NOT NULL,
    error        BOOLEAN NOT NULL,
    failed       BOOLEAN NOT NULL,  -- for good: in error, or in a way that would be worth another try
    definite     BOOLEAN NOT NULL
);

-- Links of consumers, and of servers that started a trace of their own, so that what they link to, arriving
-- late, finds them.
CREATE TABLE entry_links (
    trace_id        UUID NOT NULL,
    span_key        BIGINT NOT NULL,
    linked_trace_id UUID NOT NULL,
    linked_span_id  UBIGINT NOT NULL
);

-- Requests that a service went on with in a trace of its own: a SERVER span without a parent that links to a
-- span of the same service. What it asked for was asked for by the request it continues, too.
CREATE TABLE continuations (
    trace_id      UUID NOT NULL,
    entry_key     BIGINT NOT NULL,
    continued_key BIGINT NOT NULL  -- entry span of the request that it continues
);

-- What the user says of the services (see rules.py); one row.
CREATE TABLE rules (
    proxies           VARCHAR[] NOT NULL DEFAULT [],
    max_retry_gap_ns  BIGINT NOT NULL DEFAULT 60000000000,
    max_clock_skew_ns BIGINT NOT NULL DEFAULT 10000000,
    circuit_markers   VARCHAR[] NOT NULL DEFAULT []
);
INSERT INTO rules DEFAULT VALUES;

-- Runs of proofs; `ended_ns` and `outcome` are missing while one goes on, or if it never ended.
CREATE TABLE runs (
    run_id     VARCHAR NOT NULL,
    origin     VARCHAR NOT NULL,  -- who asked for it: run, api, gate
    started_ns BIGINT NOT NULL,   -- Unix time
    ended_ns   BIGINT,
    outcome    VARCHAR            -- pass, fail, inconclusive, error
);

-- One row per proof of a run.
CREATE TABLE run_proofs (
    run_id      VARCHAR NOT NULL,
    place       INTEGER NOT NULL,  -- in its run, from 0
    started_ns  BIGINT NOT NULL,
    name        VARCHAR NOT NULL,
    path        VARCHAR NOT NULL,
    outcome     VARCHAR NOT NULL,
    duration_ns BIGINT NOT NULL,
    failures    VARCHAR[] NOT NULL,  -- what the claims that did not pass are about; `incomplete` for those still open
    document    VARCHAR NOT NULL     -- JSON: the proof with its verdicts and evidence
);

-- Sidecars: spans of these services are no hops of their own.
CREATE VIEW proxies AS SELECT unnest(proxies) AS service FROM rules;

CREATE TABLE derivation (
    last_span_key BIGINT NOT NULL  -- spans up to here are in the derived tables
);
INSERT INTO derivation VALUES (-1);

-- Traces that began up to then were forgotten (see retention.py), by what they or their arrival say; one row, NULL: none.
CREATE TABLE forgetting (
    last_start_ns BIGINT
);
INSERT INTO forgetting VALUES (NULL);

-- The texts in an attribute's value: the elements of an array, else the value itself.
CREATE MACRO attribute_texts(value) AS CASE
    WHEN starts_with(value, chr(1) || 'a') THEN list_transform(
        from_json(substr(value, 3), '["JSON"]'),
        lambda item: coalesce(
            item ->> 'stringValue', item ->> 'intValue', item ->> 'doubleValue', item ->> 'boolValue', item::VARCHAR
        )
    )
    WHEN starts_with(value, chr(1)) THEN [substr(value, 3)]
    ELSE [value]
END;

-- Which traces go on in which others: by a message, or by a request that a service continued there.
CREATE VIEW next_traces AS
SELECT e.trace_id AS from_trace_id, t.trace_id
FROM exchanges e JOIN tree t ON t.span_key = e.callee_entry
WHERE e.async AND t.trace_id <> e.trace_id
UNION
SELECT t.trace_id, k.trace_id
FROM continuations k JOIN tree t ON t.span_key = k.continued_key
WHERE t.trace_id <> k.trace_id;

-- The exchanges as a path goes through them: those of a continued request are also made by the one it continues.
CREATE VIEW hops AS
FROM exchanges
UNION ALL
SELECT e.* REPLACE (k.continued_key AS caller_entry)
FROM exchanges e JOIN continuations k ON k.entry_key = e.caller_entry;
