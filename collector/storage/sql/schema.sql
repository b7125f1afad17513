-- Received spans (`spans`, `resources`, `scopes`) and the tables derived from them (`traces`, `topology`,
-- `attempts`, `calls`, `entry_links`, `continuations`). Every derived table can be derived again from the spans.
--
-- Attributes are two lists of one length, in the order of the exporter, each key once. They are not a MAP, because
-- DuckDB checks each MAP for duplicate keys, which costs several times as much as the rest of the insert.
-- `attribute_kinds` holds one letter per attribute, in that order, and so keeps the type:
--   s string   b bool ("true", "false")   i int   d double   y bytes (base64)
--   a array and k kvlist (both as the OTLP/JSON text of the AnyValue's content)   n no value
-- The text of an `n`, and of a `d` that is NaN, is NULL: such an attribute is missing for claims.
-- The text of an `a`, `k` or `y` value starts with U+0001 and its letter. A string that itself starts with
-- U+0001 is prefixed with U+0001 and `s`. A text without U+0001 can therefore be compared directly.

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
    span_key                 BIGINT NOT NULL,   -- increases with arrival; unique in this store
    arrived_ns               BIGINT NOT NULL,   -- when the collector received it, Unix time
    trace_id                 UUID NOT NULL,     -- the 16 bytes as they are
    span_id                  UBIGINT NOT NULL,  -- the 8 bytes, big-endian
    parent_id                UBIGINT,           -- NULL for a root
    trace_state              VARCHAR NOT NULL,
    flags                    UINTEGER NOT NULL,
    service                  VARCHAR NOT NULL,
    name                     VARCHAR NOT NULL,
    kind                     INTEGER NOT NULL,  -- OTLP SpanKind: 1 internal 2 server 3 client 4 producer 5 consumer
    start_ns                 BIGINT NOT NULL,   -- Unix time
    end_ns                   BIGINT NOT NULL,   -- 0: the span has not ended
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

-- Requests sent by spanproof itself. Their spans are parents that no service exports.
CREATE TABLE triggers (
    trace_id UUID NOT NULL,
    span_id  UBIGINT NOT NULL
);

-- One row per trace: the range of its span keys, so that reading a trace scans few rows.
CREATE TABLE traces (
    trace_id  UUID NOT NULL,
    first_key BIGINT NOT NULL,    -- span_key of its first span
    last_key  BIGINT NOT NULL
);

-- One row per span: its position in its trace.
CREATE TABLE topology (
    trace_id   UUID NOT NULL,
    span_key   BIGINT NOT NULL,
    parent_key BIGINT,            -- NULL: a root, or the parent is not stored
    orphan     BOOLEAN NOT NULL,  -- it names a parent that is not stored
    entry_key  BIGINT,            -- its entry span: itself, or the nearest ancestor that is an entry span of its service
    is_entry   BOOLEAN NOT NULL,
    definite   BOOLEAN NOT NULL,  -- no later span can change entry_key and is_entry
    depth      INTEGER NOT NULL,  -- 0 for a root or an orphan
    error      BOOLEAN NOT NULL,
    -- copied from the span, so that most claims need no join
    service      VARCHAR NOT NULL,
    name         VARCHAR NOT NULL,
    kind         INTEGER NOT NULL,
    start_ns     BIGINT NOT NULL,
    end_ns       BIGINT,           -- NULL: unfinished
    resource_key UBIGINT NOT NULL,
    -- the kind that the span has in its trace: a client span that receives a message is a consumer, an INTERNAL span with
    -- an entry span of another service below it is a client, a client span for a part of a call is INTERNAL
    role         INTEGER NOT NULL
);

-- One row per attempt: one request and its response between a caller and a callee, in one of four shapes.
CREATE TABLE attempts (
    trace_id          UUID NOT NULL,
    call_key          BIGINT NOT NULL,   -- its logical call
    attempt_key       BIGINT NOT NULL,   -- hash of the two span keys
    attempt           INTEGER,           -- its number, from 1; NULL: not counted as an attempt (a redirect that the client followed itself)
    tier              UTINYINT NOT NULL, -- evidence that attempts belong together: 1 explicit, 2 arrivals, 3 inferred, 4 possible, 0 single
    doubt             VARCHAR,           -- why its call may have fewer attempts: possible, redirects, unended, possible unended
    shape             VARCHAR NOT NULL,  -- paired, unpaired, bare, message
    caller            VARCHAR NOT NULL,
    callee            VARCHAR NOT NULL,
    operation         VARCHAR NOT NULL,
    address           VARCHAR,           -- host:port as the caller knows it
    protocol          VARCHAR NOT NULL,  -- http, rpc, db, messaging, other
    async             BOOLEAN NOT NULL,
    caller_entry      BIGINT,
    callee_entry      BIGINT,            -- NULL where the callee exported no span
    client_key        BIGINT,            -- NULL for the bare shape
    server_key        BIGINT,
    wrapper_key       BIGINT,            -- the wrapper span right around the client span
    outer_wrapper_key BIGINT,            -- the outermost one, if there are several
    start_ns          BIGINT NOT NULL,
    end_ns            BIGINT,            -- NULL: unfinished
    duration_ns       BIGINT,
    network_ns        BIGINT,
    lag_ns            BIGINT,
    status            INTEGER NOT NULL,
    error             BOOLEAN NOT NULL,
    failed            BOOLEAN NOT NULL,  -- an error, or no response
    responded         BOOLEAN,           -- a response was received; NULL: its client span does not tell
    retryable         BOOLEAN NOT NULL,  -- failed in a way that a retry could mend
    arrived           BOOLEAN NOT NULL,  -- seen at the callee only (tier 2): times, status and error are the callee's
    over_ns           BIGINT,            -- when it was over: with its response, if one was received
    is_call           BOOLEAN NOT NULL,  -- it is a call by itself, with the same fields
    definite          BOOLEAN NOT NULL
);

-- One row per logical call with fields of its own: of several attempts at the same request, or with a wrapper span
-- around exactly its attempts. The fields are those of the last attempt; start_ns and duration_ns span from the start of
-- the first attempt to the end of the last, or are those of the wrapper span. A message belongs to the service that sent
-- it first.
CREATE TABLE combined_calls (
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
    failed            BOOLEAN NOT NULL,  -- in the end: an error, or no response
    retryable         BOOLEAN NOT NULL,  -- the last attempt failed in a way that a retry could mend
    over_ns           BIGINT,            -- when the last attempt was over
    kept_apart        VARCHAR,           -- how a later request differs, if the last attempt failed and was not repeated
    definite          BOOLEAN NOT NULL
);

-- One row per logical call.
CREATE VIEW calls AS
SELECT
    trace_id, call_key, 1::INTEGER AS attempts, tier, doubt, shape, caller, callee, operation, protocol, async, caller_entry,
    callee_entry, client_key, server_key, wrapper_key, outer_wrapper_key, start_ns, end_ns, duration_ns, network_ns, lag_ns,
    status, error, failed, retryable, over_ns, NULL::VARCHAR AS kept_apart, definite
FROM attempts
WHERE is_call
UNION ALL BY NAME
FROM combined_calls;

-- The attempts and calls in doubt once more, read as separate calls.
CREATE TABLE separate_attempts AS FROM attempts;
CREATE TABLE separate_calls AS FROM calls;

-- Which services answered at which address (`host:port`; for a loopback address `caller host:port`).
CREATE TABLE answers (
    address_key VARCHAR NOT NULL,
    service     VARCHAR NOT NULL
);

-- Links of consumer spans, and of server spans that started a new trace. A linked span that arrives later finds
-- them here.
CREATE TABLE entry_links (
    trace_id        UUID NOT NULL,
    span_key        BIGINT NOT NULL,
    linked_trace_id UUID NOT NULL,
    linked_span_id  UBIGINT NOT NULL
);

-- Deliveries of messages that have an id (`message` is the hash of the service's key of it), so that the deliveries of
-- one message in several traces are found. `is_unlinked`: neither a parent nor a link ties it to the producer.
CREATE TABLE deliveries (
    trace_id    UUID NOT NULL,
    message     UBIGINT NOT NULL,
    is_unlinked BOOLEAN NOT NULL
);

-- Requests that a service continued in a new trace: a SERVER span without a parent that links to a span of the
-- same service. Its calls count as calls of the request that it continues, too.
CREATE TABLE continuations (
    trace_id      UUID NOT NULL,
    entry_key     BIGINT NOT NULL,
    continued_key BIGINT NOT NULL  -- entry span of the continued request
);

-- Rules that users declare for their services (see service_rules.py); one row.
CREATE TABLE rules (
    proxies           VARCHAR[] NOT NULL DEFAULT [],
    max_retry_gap_ns  BIGINT NOT NULL DEFAULT 60000000000,
    max_clock_skew_ns BIGINT NOT NULL DEFAULT 10000000,
    circuit_markers   VARCHAR[] NOT NULL DEFAULT [],
    edges             VARCHAR[] NOT NULL DEFAULT [],
    retried_calls     VARCHAR[] NOT NULL DEFAULT [],
    distinct_calls    VARCHAR[] NOT NULL DEFAULT []
);
INSERT INTO rules DEFAULT VALUES;

-- Runs of proofs; `ended_ns` and `outcome` are NULL while a run is active, or if it never ended.
CREATE TABLE runs (
    run_id     VARCHAR NOT NULL,
    origin     VARCHAR NOT NULL,  -- what started it: run, api, gate
    started_ns BIGINT NOT NULL,   -- Unix time
    ended_ns   BIGINT,
    outcome    VARCHAR            -- pass, fail, inconclusive, error
);

-- One row per proof of a run.
CREATE TABLE run_proofs (
    run_id        VARCHAR NOT NULL,
    position      INTEGER NOT NULL,  -- in its run, from 0
    started_ns    BIGINT NOT NULL,
    name          VARCHAR NOT NULL,
    path          VARCHAR NOT NULL,
    outcome       VARCHAR NOT NULL,
    duration_ns   BIGINT NOT NULL,
    failure_kinds VARCHAR[] NOT NULL,  -- subjects of the claims that did not pass; `incomplete` for undecided ones
    document      VARCHAR NOT NULL  -- JSON: the proof with its verdicts and evidence
);

-- Sidecars: spans of these services are not hops of their own.
CREATE VIEW proxies AS SELECT unnest(proxies) AS service FROM rules;

CREATE TABLE derivation (
    last_span_key BIGINT NOT NULL  -- spans up to this key are in the derived tables
);
INSERT INTO derivation VALUES (-1);

-- Start of the latest deleted trace (see retention.py), by its own time or its arrival; one row, NULL: none.
CREATE TABLE expiry (
    last_start_ns BIGINT
);
INSERT INTO expiry VALUES (NULL);

-- The texts in an attribute's value: the elements of an array, or else the value itself. An element without a value, or
-- that is NaN, is NULL.
CREATE MACRO attribute_texts(value) AS CASE
    WHEN starts_with(value, chr(1) || 'a') THEN list_transform(
        from_json(substr(value, 3), '["JSON"]'),
        lambda item: CASE
            WHEN item::VARCHAR IN ('{}', '{"doubleValue":"NaN"}') THEN NULL
            ELSE coalesce(
                item ->> 'stringValue', item ->> 'intValue', item ->> 'doubleValue', item ->> 'boolValue', item::VARCHAR
            )
        END
    )
    WHEN starts_with(value, chr(1)) THEN [substr(value, 3)]
    ELSE [value]
END;

-- Traces that continue in other traces: by a message, or by a request that a service continued there.
CREATE VIEW next_traces AS
SELECT a.trace_id AS from_trace_id, t.trace_id
FROM attempts a JOIN topology t ON t.span_key = a.callee_entry
WHERE a.async AND t.trace_id <> a.trace_id
UNION
SELECT t.trace_id, c.trace_id
FROM continuations c JOIN topology t ON t.span_key = c.continued_key
WHERE t.trace_id <> c.trace_id;

-- The attempts that paths follow: those of a continuing request also count as made by the request it continues.
CREATE VIEW hops AS
FROM attempts
UNION ALL
SELECT a.* REPLACE (c.continued_key AS caller_entry)
FROM attempts a JOIN continuations c ON c.entry_key = a.caller_entry;
