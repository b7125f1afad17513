-- What is still to come of the traces in the temporary table `judged(trace_id)`, one row for each thing, in the
-- temporary table `missing`. `sure`: it is known to exist; else only time can tell whether it does.
CREATE OR REPLACE TEMP TABLE missing AS
WITH
mine AS (
    SELECT e.* FROM exchanges e SEMI JOIN judged USING (trace_id)
),
instrumented AS (  -- addresses behind which a service has answered with spans of its own
    SELECT address, any_value(callee) AS service
    FROM exchanges
    WHERE callee_entry IS NOT NULL AND address IS NOT NULL
    GROUP BY address
),
silent AS (  -- addresses that have been asked in traces long past, and have never answered with a span
    SELECT e.address
    FROM exchanges e JOIN spans s ON s.span_key = e.client_key
    WHERE e.address IS NOT NULL AND e.shape = 'unpaired' AND s.arrived_ns < getvariable('long_past_ns')
        AND e.trace_id NOT IN (FROM judged) AND e.address NOT IN (SELECT address FROM instrumented)
),
unanswered AS (
    SELECT
        m.trace_id, m.caller, coalesce(i.service, r.service) AS service, m.callee, m.error, m.async,
        coalesce(m.address, m.callee) IN (SELECT address FROM silent) AS silent
    FROM mine m
    LEFT JOIN instrumented i ON i.address = m.address
    LEFT JOIN (SELECT DISTINCT service FROM resources) r ON r.service = m.callee
    WHERE m.shape = 'unpaired' AND m.protocol <> 'db' AND m.callee NOT IN (FROM proxies)
)
SELECT j.trace_id, 'root' AS kind, true AS sure, NULL AS caller, NULL AS callee
FROM judged j
WHERE NOT EXISTS (SELECT 1 FROM tree t WHERE t.trace_id = j.trace_id AND t.depth = 0 AND NOT t.orphan)
UNION ALL
SELECT t.trace_id, 'parent', true, s.service, s.name
FROM tree t JOIN spans s ON s.span_key = t.span_key
WHERE t.orphan AND t.trace_id IN (FROM judged)
UNION ALL
SELECT trace_id, 'answer', NOT error, caller, service
FROM unanswered WHERE service IS NOT NULL AND NOT async
UNION ALL
SELECT trace_id, CASE WHEN async THEN 'consumer' ELSE 'peer' END, false, caller, callee
FROM unanswered WHERE (service IS NULL OR async) AND NOT silent
