-- The traces whose derived rows are out of date because of spans up to `getvariable('last_key')`, in the temporary
-- table `around` where `dirty`; beside them those that theirs are tied to by links. Duplicates among their spans are
-- dropped. Also sets the range of their spans' keys: `first_key` to `end_key`.
CREATE OR REPLACE TEMP TABLE ties AS
WITH sent AS (
    SELECT trace_id, linked_trace_id FROM entry_links
    UNION
    SELECT trace_id, unnest(links).trace_id FROM spans
    WHERE kind IN (2, 5) AND len(links) > 0
        AND span_key > (SELECT last_span_key FROM derivation) AND span_key <= getvariable('last_key')
)
SELECT trace_id, linked_trace_id AS tied_id FROM sent WHERE trace_id <> linked_trace_id
UNION ALL
SELECT linked_trace_id, trace_id FROM sent WHERE trace_id <> linked_trace_id;

CREATE OR REPLACE TEMP TABLE around AS
WITH grown AS (
    SELECT DISTINCT trace_id FROM spans
    WHERE span_key > (SELECT last_span_key FROM derivation) AND span_key <= getvariable('last_key')
),
dirty AS (
    FROM grown
    UNION
    SELECT t.tied_id FROM ties t SEMI JOIN grown USING (trace_id)
)
SELECT trace_id, true AS dirty FROM dirty
UNION ALL
SELECT DISTINCT t.tied_id, false FROM ties t SEMI JOIN dirty USING (trace_id)
WHERE t.tied_id NOT IN (FROM dirty);
