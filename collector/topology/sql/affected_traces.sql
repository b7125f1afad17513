-- The traces in `rows`, and those that a link from or to them makes out of date, too (`dirty`); and the traces that links
-- tie to these. Links of the spans with keys from `$first` to `$last` are not stored yet.
WITH trace_links AS (
    SELECT trace_id, linked_trace_id FROM entry_links
    UNION
    SELECT trace_id, unnest(links).trace_id FROM spans
    WHERE kind IN (2, 3, 5) AND len(links) > 0 AND span_key BETWEEN $first AND $last
),
related_traces AS MATERIALIZED (
    SELECT trace_id, linked_trace_id AS related_id FROM trace_links WHERE trace_id <> linked_trace_id
    UNION ALL
    SELECT linked_trace_id, trace_id FROM trace_links WHERE trace_id <> linked_trace_id
),
changed AS MATERIALIZED (
    SELECT DISTINCT trace_id FROM rows
),
dirty AS MATERIALIZED (
    FROM changed
    UNION
    SELECT r.related_id FROM related_traces r SEMI JOIN changed USING (trace_id)
)
SELECT affected.*, first_key, last_key
FROM (
    SELECT trace_id, true AS dirty, true AS has_links FROM dirty
    UNION ALL
    SELECT DISTINCT r.related_id, false, true FROM related_traces r SEMI JOIN dirty USING (trace_id)
    WHERE r.related_id NOT IN (FROM dirty)
) affected
LEFT JOIN traces USING (trace_id)
