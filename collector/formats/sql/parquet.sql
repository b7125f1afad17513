-- Spans in a form for other tools: one row per span, with its resource and scope, ids in hex, attributes as MAPs of
-- texts beside MAPs of their types. A span that has not ended has no end and no duration. The temporary table `exported` has the traces.

CREATE OR REPLACE TEMP MACRO as_map(attributes, kinds) AS map_from_entries(list_zip(
    attributes.keys,
    list_transform(attributes.texts, lambda text, position: CASE
        WHEN text IS NULL AND substr(kinds, position, 1) = 'd' THEN 'nan'
        WHEN starts_with(text, chr(1)) THEN substr(text, 3)
        ELSE text
    END)
));

CREATE OR REPLACE TEMP MACRO types_as_map(attributes, kinds) AS map_from_entries(list_zip(
    attributes.keys,
    list_transform(
        range(1, len(kinds) + 1),
        lambda position: CASE substr(kinds, position, 1)
            WHEN 's' THEN 'string' WHEN 'b' THEN 'bool' WHEN 'i' THEN 'int' WHEN 'd' THEN 'double'
            WHEN 'y' THEN 'bytes' WHEN 'a' THEN 'array' WHEN 'k' THEN 'kvlist' ELSE 'none'
        END
    )
));

-- The largest timestamp means infinity in DuckDB, which Parquet does not have.
CREATE OR REPLACE TEMP MACRO as_time(time_ns) AS make_timestamp_ns(nullif(time_ns, 9223372036854775807));

CREATE OR REPLACE TEMP VIEW spans_to_export AS
SELECT
    replace(s.trace_id::VARCHAR, '-', '') AS trace_id,
    printf('%016x', s.span_id) AS span_id,
    printf('%016x', s.parent_id) AS parent_span_id,
    s.service,
    s.name,
    coalesce(
        ['unspecified', 'internal', 'server', 'client', 'producer', 'consumer'][s.kind + 1], s.kind::VARCHAR
    ) AS kind,
    as_time(s.start_ns) AS start_time,
    as_time(nullif(s.end_ns, 0)) AS end_time,
    s.start_ns,
    nullif(s.end_ns, 0) AS end_ns,
    nullif(s.end_ns, 0) - s.start_ns AS duration_ns,
    coalesce(['unset', 'ok', 'error'][s.status + 1], s.status::VARCHAR) AS status,
    s.status_message,
    as_map(s.attributes, s.attribute_kinds) AS attributes,
    types_as_map(s.attributes, s.attribute_kinds) AS attribute_types,
    as_map(r.attributes, r.attribute_kinds) AS resource_attributes,
    types_as_map(r.attributes, r.attribute_kinds) AS resource_attribute_types,
    c.name AS scope_name,
    c.version AS scope_version,
    as_map(c.attributes, c.attribute_kinds) AS scope_attributes,
    types_as_map(c.attributes, c.attribute_kinds) AS scope_attribute_types,
    list_transform(s.events, lambda event: {
        time: as_time(event.time_ns),
        time_ns: event.time_ns,
        name: event.name,
        attributes: as_map(event.attributes, event.attribute_kinds),
        attribute_types: types_as_map(event.attributes, event.attribute_kinds),
        dropped_attributes_count: event.dropped_attributes_count
    }) AS events,
    list_transform(s.links, lambda link: {
        trace_id: replace(link.trace_id::VARCHAR, '-', ''),
        span_id: printf('%016x', link.span_id),
        trace_state: link.trace_state,
        flags: link.flags,
        attributes: as_map(link.attributes, link.attribute_kinds),
        attribute_types: types_as_map(link.attributes, link.attribute_kinds),
        dropped_attributes_count: link.dropped_attributes_count
    }) AS links,
    s.trace_state,
    s.flags,
    s.dropped_attributes_count,
    s.dropped_events_count,
    s.dropped_links_count,
    r.schema_url AS resource_schema_url,
    r.entity_refs AS resource_entity_refs,
    r.dropped_attributes_count AS resource_dropped_attributes_count,
    c.schema_url AS scope_schema_url,
    c.dropped_attributes_count AS scope_dropped_attributes_count,
    as_time(s.arrived_ns) AS arrived
FROM spans s
JOIN resources r USING (resource_key)
JOIN scopes c USING (scope_key)
WHERE s.trace_id IN (FROM exported)
ORDER BY s.span_key;
