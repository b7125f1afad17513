-- The traces whose derived rows are out of date because of spans with keys from `$first` to `$last`, `dirty`; beside
-- them those that theirs are tied to by links.
WITH sent AS (
    SELECT trace_id, linked_trace_id FROM entry_links
    UNION
    SELECT trace_id, unnest(links).trace_id FROM spans
    WHERE kind IN (2, 5) AND len(links) > 0 AND span_key BETWEEN $first AND $last
),
ties AS MATERIALIZED (
    SELECT trace_id, linked_trace_id AS tied_id FROM sent WHERE trace_id <> linked_trace_id
    UNION ALL
    SELECT linked_trace_id, trace_id FROM sent WHERE trace_id <> linked_trace_id
),
grown AS MATERIALIZED (
    SELECT DISTINCT trace_id FROM spans WHERE span_key BETWEEN $first AND $last
),
dirty AS MATERIALIZED (
    FROM grown
    UNION
    SELECT t.tied_id FROM ties t SEMI JOIN grown USING (trace_id)
)
SELECT found.*, first_key, last_key
FROM (
    SELECT trace_id, true AS dirty, true AS links FROM dirty
    UNION ALL
    SELECT DISTINCT t.tied_id, false, true FROM ties t SEMI JOIN dirty USING (trace_id)
    WHERE t.tied_id NOT IN (FROM dirty)
) found
LEFT JOIN traces USING (trace_id)
