-- The traces whose derived rows are out of date because of the spans with keys from `$first` to `$last` (`dirty`),
-- and the traces that links tie to them.
WITH trace_links AS (
    SELECT trace_id, linked_trace_id FROM entry_links
    UNION
    SELECT trace_id, unnest(links).trace_id FROM spans
    WHERE kind IN (2, 5) AND len(links) > 0 AND span_key BETWEEN $first AND $last
),
ties AS MATERIALIZED (
    SELECT trace_id, linked_trace_id AS tied_id FROM trace_links WHERE trace_id <> linked_trace_id
    UNION ALL
    SELECT linked_trace_id, trace_id FROM trace_links WHERE trace_id <> linked_trace_id
),
changed AS MATERIALIZED (
    SELECT DISTINCT trace_id FROM spans WHERE span_key BETWEEN $first AND $last
),
dirty AS MATERIALIZED (
    FROM changed
    UNION
    SELECT t.tied_id FROM ties t SEMI JOIN changed USING (trace_id)
)
SELECT affected.*, first_key, last_key
FROM (
    SELECT trace_id, true AS dirty, true AS has_links FROM dirty
    UNION ALL
    SELECT DISTINCT t.tied_id, false, true FROM ties t SEMI JOIN dirty USING (trace_id)
    WHERE t.tied_id NOT IN (FROM dirty)
) affected
LEFT JOIN traces USING (trace_id)
