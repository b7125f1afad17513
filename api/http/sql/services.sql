-- The services with spans in a time window, and the requests that they received: their entry spans. Spans
-- that have not ended have no duration.
WITH window_spans AS (
    SELECT span_key, service, start_ns, end_ns, resource_key FROM spans
    WHERE start_ns >= $since_ns AND start_ns < $until_ns
),
requests AS (
    SELECT
        s.service, count(*) AS requests, count(*) FILTER (t.error) AS errors,
        count(*) FILTER (s.end_ns <> 0) AS n, list_sort(list(s.end_ns - s.start_ns) FILTER (s.end_ns <> 0)) AS sorted
    FROM window_spans s JOIN topology t USING (span_key)
    WHERE t.is_entry
    GROUP BY s.service
),
versions AS (
    SELECT w.service, list_sort(list_distinct(flatten(list(attribute_texts({version}))))) AS versions
    FROM (SELECT DISTINCT service, resource_key FROM window_spans) w JOIN resources r USING (resource_key)
    WHERE {version} IS NOT NULL
    GROUP BY w.service
)
SELECT
    service, coalesce(requests, 0), coalesce(errors, 0), coalesce(versions, []), coalesce(n, 0),
    sorted[(n * 50 + 99) // 100], sorted[(n * 95 + 99) // 100], sorted[(n * 99 + 99) // 100]
FROM (SELECT DISTINCT service FROM window_spans)
LEFT JOIN requests USING (service)
LEFT JOIN versions USING (service)
ORDER BY service
