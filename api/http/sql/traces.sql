-- The newest matching traces before `$before_ns` and `$before_id`, of the spans up to `$last_key`.
-- `trace_condition` selects the traces with a span that meets the conditions of the search.
WITH visible_spans AS (
    -- of a span that has not ended, the start is the last that is known
    SELECT span_key, trace_id, service, name, start_ns, coalesce(nullif(end_ns, 0), start_ns) AS end_ns
    FROM spans WHERE span_key <= $last_key
),
matching_traces AS (
    SELECT trace_id, min(start_ns) AS trace_start_ns, max(end_ns) - min(start_ns) AS duration_ns
    FROM visible_spans
    WHERE {trace_condition}
    GROUP BY trace_id
    HAVING min(start_ns) >= $since_ns AND min(start_ns) < $until_ns
        AND max(end_ns) - min(start_ns) BETWEEN $min_ns AND $max_ns
        AND (min(start_ns) < $before_ns OR min(start_ns) = $before_ns AND trace_id < $before_id::UUID)
    ORDER BY trace_start_ns DESC, trace_id DESC
    LIMIT $limit
)
SELECT
    trace_id, any_value(m.trace_start_ns) AS trace_start_ns, any_value(m.duration_ns), count(*),
    list_sort(list(DISTINCT s.service)), count(*) FILTER (t.error),
    arg_min({'service': s.service, 'name': s.name, 'orphan': t.orphan}, (t.depth, t.orphan, s.start_ns, s.span_key))
FROM matching_traces m JOIN visible_spans s USING (trace_id) JOIN topology t USING (trace_id, span_key)
GROUP BY trace_id
ORDER BY trace_start_ns DESC, trace_id DESC
