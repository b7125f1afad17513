-- The traces whose derived rows are out of date, in the temporary table `dirty`; duplicates among their
-- spans are dropped.
CREATE OR REPLACE TEMP TABLE dirty AS
WITH grown AS (
    SELECT DISTINCT trace_id FROM spans WHERE span_key > (SELECT last_span_key FROM derivation)
),
tied AS (
    SELECT l.trace_id, l.linked_trace_id FROM entry_links l
    UNION
    SELECT trace_id, unnest(links).trace_id FROM spans
    WHERE kind IN (2, 5) AND len(links) > 0 AND span_key > (SELECT last_span_key FROM derivation)
)
FROM grown
UNION
SELECT c.trace_id FROM tied c SEMI JOIN grown g ON g.trace_id = c.linked_trace_id
UNION
SELECT c.linked_trace_id FROM tied c SEMI JOIN grown g ON g.trace_id = c.trace_id;

DELETE FROM spans WHERE span_key IN (
    SELECT span_key FROM spans
    WHERE trace_id IN (FROM dirty)
    QUALIFY row_number() OVER (PARTITION BY trace_id, span_id, kind, service ORDER BY end_ns DESC, span_key) > 1
);

UPDATE derivation SET last_span_key = greatest(last_span_key, (SELECT max(span_key) FROM spans));
