-- Convert attributes from MAP(VARCHAR, VARCHAR) to two lists, keys and texts; replace the table of sidecars by rules.

CREATE TEMP MACRO as_lists(map) AS struct_pack(keys := map_keys(map), texts := map_values(map));

ALTER TABLE resources ALTER attributes TYPE STRUCT(keys VARCHAR[], texts VARCHAR[]) USING as_lists(attributes);
ALTER TABLE scopes ALTER attributes TYPE STRUCT(keys VARCHAR[], texts VARCHAR[]) USING as_lists(attributes);
ALTER TABLE spans ALTER attributes TYPE STRUCT(keys VARCHAR[], texts VARCHAR[]) USING as_lists(attributes);
ALTER TABLE spans ALTER events TYPE STRUCT(
    time_ns BIGINT,
    name VARCHAR,
    attributes STRUCT(keys VARCHAR[], texts VARCHAR[]),
    attribute_kinds VARCHAR,
    dropped_attributes_count UINTEGER
)[] USING list_transform(events, lambda event: struct_update(event, attributes := as_lists(event.attributes)));
ALTER TABLE spans ALTER links TYPE STRUCT(
    trace_id UUID,
    span_id UBIGINT,
    trace_state VARCHAR,
    flags UINTEGER,
    attributes STRUCT(keys VARCHAR[], texts VARCHAR[]),
    attribute_kinds VARCHAR,
    dropped_attributes_count UINTEGER
)[] USING list_transform(links, lambda link: struct_update(link, attributes := as_lists(link.attributes)));

DROP MACRO as_lists;

-- Rules that users declare for their services (see service_rules.py); one row.
CREATE TABLE rules (
    proxies           VARCHAR[] NOT NULL DEFAULT [],
    max_retry_gap_ns  BIGINT NOT NULL DEFAULT 60000000000,
    max_clock_skew_ns BIGINT NOT NULL DEFAULT 10000000,
    circuit_markers   VARCHAR[] NOT NULL DEFAULT []
);
INSERT INTO rules DEFAULT VALUES;

UPDATE rules SET proxies = coalesce((SELECT list(service) FROM proxies), []);
DROP TABLE proxies;
CREATE VIEW proxies AS SELECT unnest(proxies) AS service FROM rules;

-- The derivation has changed, too: derive everything again.
UPDATE derivation SET last_span_key = -1;
