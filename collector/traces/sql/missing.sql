-- What is still to come of the traces in the temporary table `judged(trace_id)`, one row for each thing, in the
-- temporary table `missing`. `sure`: it is known to exist; else only time can tell whether it does.
CREATE OR REPLACE TEMP TABLE missing AS
WITH
mine AS MATERIALIZED (  -- calls that nobody answered, though somebody might
    SELECT trace_id, caller, callee, address, error, async
    FROM attempts SEMI JOIN judged USING (trace_id)
    WHERE shape = 'unpaired' AND protocol <> 'db' AND callee NOT IN (FROM proxies)
),
asked AS MATERIALIZED (
    SELECT DISTINCT address FROM mine WHERE address IS NOT NULL
),
instrumented AS (  -- addresses behind which a service has answered with spans of its own
    SELECT address, any_value(callee) AS service
    FROM attempts
    WHERE callee_entry IS NOT NULL AND address IN (FROM asked)
    GROUP BY address
),
silent AS (  -- addresses that have been asked in traces long past, and have never answered with a span
    SELECT DISTINCT e.address
    FROM attempts e ANTI JOIN judged USING (trace_id)
    WHERE e.address IN (FROM asked) AND e.shape = 'unpaired'
        -- keys grow with arrival
        AND e.client_key < (
            SELECT coalesce(min(span_key), 9223372036854775807) FROM spans
            WHERE arrived_ns >= getvariable('long_past_ns')
        )
        AND e.address NOT IN (SELECT address FROM instrumented)
),
unanswered AS (
    SELECT
        m.trace_id, m.caller, coalesce(i.service, r.service) AS service, m.callee, m.error, m.async,
        coalesce(m.address, m.callee) IN (SELECT address FROM silent) AS silent
    FROM mine m
    LEFT JOIN instrumented i ON i.address = m.address
    LEFT JOIN (SELECT DISTINCT service FROM resources) r ON r.service = m.callee
)
SELECT j.trace_id, 'root' AS kind, true AS sure, NULL AS caller, NULL AS callee
FROM judged j
WHERE NOT EXISTS (SELECT 1 FROM topology t WHERE t.trace_id = j.trace_id AND t.depth = 0 AND NOT t.orphan)
UNION ALL
SELECT trace_id, 'parent', true, service, name
FROM topology SEMI JOIN judged USING (trace_id)
WHERE orphan
UNION ALL
SELECT trace_id, 'answer', NOT error, caller, service
FROM unanswered WHERE service IS NOT NULL AND NOT async
UNION ALL
SELECT trace_id, CASE WHEN async THEN 'consumer' ELSE 'peer' END, false, caller, callee
FROM unanswered WHERE (service IS NULL OR async) AND NOT silent
