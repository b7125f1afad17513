-- An attribute without a value, or that is NaN, has no text: for claims, it is missing.
CREATE TEMP MACRO clear_missing(attributes, kinds) AS {
    keys: attributes.keys,
    texts: list_transform(attributes.texts, lambda text, position: CASE
        WHEN kinds[position] = 'n' OR (kinds[position] = 'd' AND text = 'nan') THEN NULL
        ELSE text
    END)
};
CREATE TEMP MACRO has_missing(attributes, kinds) AS
    contains(kinds, 'n') OR (contains(kinds, 'd') AND list_contains(attributes.texts, 'nan'));

UPDATE resources SET attributes = clear_missing(attributes, attribute_kinds)
WHERE has_missing(attributes, attribute_kinds);
UPDATE scopes SET attributes = clear_missing(attributes, attribute_kinds)
WHERE has_missing(attributes, attribute_kinds);
UPDATE spans SET attributes = clear_missing(attributes, attribute_kinds)
WHERE has_missing(attributes, attribute_kinds);
UPDATE spans SET events = list_transform(events, lambda event: {
    time_ns: event.time_ns,
    name: event.name,
    attributes: clear_missing(event.attributes, event.attribute_kinds),
    attribute_kinds: event.attribute_kinds,
    dropped_attributes_count: event.dropped_attributes_count
})
WHERE len(list_filter(events, lambda event: has_missing(event.attributes, event.attribute_kinds))) > 0;
UPDATE spans SET links = list_transform(links, lambda link: {
    trace_id: link.trace_id,
    span_id: link.span_id,
    trace_state: link.trace_state,
    flags: link.flags,
    attributes: clear_missing(link.attributes, link.attribute_kinds),
    attribute_kinds: link.attribute_kinds,
    dropped_attributes_count: link.dropped_attributes_count
})
WHERE len(list_filter(links, lambda link: has_missing(link.attributes, link.attribute_kinds))) > 0;

DROP MACRO clear_missing;
DROP MACRO has_missing;

CREATE OR REPLACE MACRO attribute_texts(value) AS CASE
    WHEN starts_with(value, chr(1) || 'a') THEN list_transform(
        from_json(substr(value, 3), '["JSON"]'),
        lambda item: CASE
            WHEN item::VARCHAR IN ('{}', '{"doubleValue":"NaN"}') THEN NULL
            ELSE coalesce(
                item ->> 'stringValue', item ->> 'intValue', item ->> 'doubleValue', item ->> 'boolValue', item::VARCHAR
            )
        END
    )
    WHEN starts_with(value, chr(1)) THEN [substr(value, 3)]
    ELSE [value]
END;
