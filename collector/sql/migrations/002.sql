-- Attributes become two lists, keys and texts, where they were a MAP(VARCHAR, VARCHAR).

CREATE TEMP MACRO listed(map) AS struct_pack(keys := map_keys(map), texts := map_values(map));

ALTER TABLE resources ALTER attributes TYPE STRUCT(keys VARCHAR[], texts VARCHAR[]) USING listed(attributes);
ALTER TABLE scopes ALTER attributes TYPE STRUCT(keys VARCHAR[], texts VARCHAR[]) USING listed(attributes);
ALTER TABLE spans ALTER attributes TYPE STRUCT(keys VARCHAR[], texts VARCHAR[]) USING listed(attributes);
ALTER TABLE spans ALTER events TYPE STRUCT(
    time_ns BIGINT,
    name VARCHAR,
    attributes STRUCT(keys VARCHAR[], texts VARCHAR[]),
    attribute_kinds VARCHAR,
    dropped_attributes_count UINTEGER
)[] USING list_transform(events, lambda event: struct_update(event, attributes := listed(event.attributes)));
ALTER TABLE spans ALTER links TYPE STRUCT(
    trace_id UUID,
    span_id UBIGINT,
    trace_state VARCHAR,
    flags UINTEGER,
    attributes STRUCT(keys VARCHAR[], texts VARCHAR[]),
    attribute_kinds VARCHAR,
    dropped_attributes_count UINTEGER
)[] USING list_transform(links, lambda link: struct_update(link, attributes := listed(link.attributes)));

DROP MACRO listed;
