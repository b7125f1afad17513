-- Attributes become two lists, keys and texts, where they were a MAP(VARCHAR, VARCHAR); the table of sidecars becomes one of rules.

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

-- What the user says of the services (see rules.py); one row.
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

-- The rules of derivation have changed, too.
UPDATE derivation SET last_span_key = -1;
