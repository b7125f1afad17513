-- Calls of one attempt are read from ``attempts``, instead of stored once more: everything is derived again.
DROP VIEW next_traces;
DROP VIEW hops;
DROP TABLE separate_attempts;
DROP TABLE separate_calls;
DELETE FROM attempts;
DELETE FROM calls;
ALTER TABLE attempts ADD COLUMN over_ns BIGINT;
ALTER TABLE attempts ADD COLUMN is_call BOOLEAN DEFAULT false;
ALTER TABLE attempts ALTER COLUMN is_call SET NOT NULL;
ALTER TABLE attempts ALTER COLUMN is_call DROP DEFAULT;
ALTER TABLE calls RENAME TO combined_calls;
UPDATE derivation SET last_span_key = -1;

CREATE VIEW calls AS
SELECT
    trace_id, call_key, 1::INTEGER AS attempts, tier, doubt, shape, caller, callee, operation, protocol, async, caller_entry,
    callee_entry, client_key, server_key, wrapper_key, outer_wrapper_key, start_ns, end_ns, duration_ns, network_ns, lag_ns,
    status, error, failed, retryable, over_ns, NULL::VARCHAR AS kept_apart, definite
FROM attempts
WHERE is_call
UNION ALL BY NAME
FROM combined_calls;

CREATE TABLE separate_attempts AS FROM attempts;
CREATE TABLE separate_calls AS FROM calls;

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
