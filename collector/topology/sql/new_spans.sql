-- The spans of the traces in `rows`, one row each.
SELECT
    s.span_key, s.trace_id, a.dirty, s.span_id, s.parent_id, s.service, s.name, s.kind, s.start_ns, s.status,
    nullif(s.end_ns, 0) AS end_ns,
    s.resource_key, s.scope_key, s.attributes.keys AS keys, s.attributes.texts AS texts,
    g.span_id IS NOT NULL AS has_trigger_parent,
    len(s.links) > 0 AS has_links,
    list_contains(list_transform(s.events, lambda event: event.name), 'exception') AS has_exception
FROM spans s
JOIN rows a ON a.trace_id = s.trace_id
LEFT JOIN triggers g ON g.trace_id = s.trace_id AND g.span_id = s.parent_id
WHERE s.span_key BETWEEN $first AND $last
