-- The edges of the service graph in a time window: the first page, or the one after `$after_…`.
-- `errors` counts attempts in error, `failed` counts logical calls.
WITH edges AS (
    SELECT
        caller, callee, operation, protocol, count(*) AS n, sum(attempts)::BIGINT AS attempts,
        count(*) FILTER (failed) AS failed, sum(coalesce(e.errors, 0))::BIGINT AS errors,
        list_sort(list(duration_ns)) AS sorted
    FROM calls c
    LEFT JOIN (
        SELECT trace_id, call_key, count(*) FILTER (error AND attempt IS NOT NULL) AS errors
        FROM attempts
        WHERE start_ns >= $since_ns
        GROUP BY ALL
    ) e USING (trace_id, call_key)
    WHERE c.start_ns >= $since_ns AND c.start_ns < $until_ns
        AND (
            $first
            OR (caller, callee, operation, protocol)
                > ($after_caller, $after_callee, $after_operation, $after_protocol)
        )
    GROUP BY caller, callee, operation, protocol
    ORDER BY caller, callee, operation, protocol
    LIMIT $limit
)
SELECT
    caller, callee, operation, protocol, n, attempts, errors, failed,
    sorted[(n * 50 + 99) // 100], sorted[(n * 95 + 99) // 100], sorted[(n * 99 + 99) // 100]
FROM edges
ORDER BY ALL
