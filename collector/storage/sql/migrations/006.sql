-- Rename derived tables and columns: `attempts` has one request and its response per row, `topology` the position of
-- each span in its trace.
DROP VIEW next_traces;
DROP VIEW hops;
ALTER TABLE tree RENAME TO topology;
ALTER TABLE exchanges RENAME TO attempts;
ALTER TABLE attempts RENAME COLUMN exchange_key TO attempt_key;
ALTER TABLE forgetting RENAME TO expiry;
ALTER TABLE run_proofs RENAME COLUMN place TO position;
ALTER TABLE run_proofs RENAME COLUMN failures TO failure_kinds;

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
