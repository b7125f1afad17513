-- The first `$spans` spans that meet `span_condition` of each of the traces `$trace_ids`, and the number of all these.
SELECT
    s.trace_id, s.span_id, s.name, s.start_ns, if(s.end_ns = 0, 0, s.end_ns - s.start_ns),
    s.attributes, s.attribute_kinds, r.attributes, r.attribute_kinds,
    count(*) OVER (PARTITION BY s.trace_id)
FROM spans s JOIN resources r USING (resource_key)
WHERE s.trace_id IN (SELECT unnest($trace_ids::UUID[])) AND {span_condition}
QUALIFY row_number() OVER (PARTITION BY s.trace_id ORDER BY s.start_ns, s.span_key) <= $spans
ORDER BY s.start_ns, s.span_key
