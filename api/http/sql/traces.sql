-- The newest traces that match, from `$before` on downwards, of the spans that were there at `$last_key`.
-- `chosen` says which traces have the spans that are asked for.
WITH seen AS (
    SELECT span_key, trace_id, service, name, start_ns, end_ns FROM spans WHERE span_key <= $last_key
),
found AS (
    SELECT trace_id, min(start_ns) AS began_ns, max(end_ns) - min(start_ns) AS duration_ns
    FROM seen
    WHERE {chosen}
    GROUP BY trace_id
    HAVING min(start_ns) >= $since_ns AND min(start_ns) < $until_ns
        AND max(end_ns) - min(start_ns) BETWEEN $min_ns AND $max_ns
        AND (min(start_ns) < $before_ns OR min(start_ns) = $before_ns AND trace_id < $before_id::UUID)
    ORDER BY began_ns DESC, trace_id DESC
    LIMIT $limit
)
SELECT
    trace_id, any_value(f.began_ns) AS began_ns, any_value(f.duration_ns), count(*),
    list_sort(list(DISTINCT s.service)), count(*) FILTER (t.error),
    arg_min({'service': s.service, 'name': s.name, 'orphan': t.orphan}, (t.depth, t.orphan, s.start_ns, s.span_key))
FROM found f JOIN seen s USING (trace_id) JOIN topology t USING (trace_id, span_key)
GROUP BY trace_id
ORDER BY began_ns DESC, trace_id DESC
