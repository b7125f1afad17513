-- Spans that are missing from the traces in the temporary table `judged(trace_id)`, one row each, in the temporary
-- table `missing`. `certain`: the spans are known to exist; otherwise they may or may not exist.
CREATE OR REPLACE TEMP TABLE missing AS
WITH
unpaired AS MATERIALIZED (  -- calls without a server span, whose callee may send one
    SELECT trace_id, caller, callee, address, error, async
    FROM attempts SEMI JOIN judged USING (trace_id)
    WHERE shape = 'unpaired' AND protocol <> 'db' AND callee NOT IN (FROM proxies)
        AND callee <> caller  -- a client span that names its own service as the peer
),
addresses AS MATERIALIZED (
    SELECT DISTINCT address FROM unpaired WHERE address IS NOT NULL
),
instrumented AS (  -- addresses of services that have sent server spans
    SELECT address, any_value(callee) AS service
    FROM attempts
    WHERE callee_entry IS NOT NULL AND address IN (FROM addresses)
    GROUP BY address
),
uninstrumented AS (  -- addresses that were called in much older traces, and never sent a server span
    SELECT DISTINCT a.address
    FROM attempts a ANTI JOIN judged USING (trace_id)
    WHERE a.address IN (FROM addresses) AND a.shape = 'unpaired'
        -- keys increase with arrival
        AND a.client_key < (
            SELECT coalesce(min(span_key), 9223372036854775807) FROM spans
            WHERE arrived_ns >= getvariable('long_past_ns')
        )
        AND a.address NOT IN (SELECT address FROM instrumented)
),
growing AS MATERIALIZED (  -- only these may have a callee that still runs
    SELECT trace_id FROM judged
    WHERE trace_id IN (SELECT trace_id FROM spans WHERE arrived_ns >= getvariable('growing_since_ns'))
),
covered AS (  -- client spans with server spans: how much of the time of each these cover
    SELECT a.trace_id, a.caller, a.callee, a.client_key, any_value(client.end_ns - client.start_ns) AS client_ns,
        sum(server.end_ns - server.start_ns) AS server_ns
    FROM growing JOIN attempts a ON a.trace_id = growing.trace_id
    JOIN topology client ON client.span_key = a.client_key
    JOIN topology server ON server.span_key = a.server_key
    WHERE a.shape = 'paired'
    GROUP BY ALL
),
expected AS (
    SELECT
        u.trace_id, u.caller, coalesce(i.service, r.service) AS service, u.callee, u.error, u.async,
        coalesce(u.address, u.callee) IN (SELECT address FROM uninstrumented) AS uninstrumented
    FROM unpaired u
    LEFT JOIN instrumented i ON i.address = u.address
    LEFT JOIN (SELECT DISTINCT service FROM resources) r ON r.service = u.callee
)
SELECT j.trace_id, 'root' AS kind, true AS certain, NULL AS caller, NULL AS callee
FROM judged j
WHERE NOT EXISTS (SELECT 1 FROM topology t WHERE t.trace_id = j.trace_id AND t.depth = 0 AND NOT t.orphan)
UNION ALL
SELECT trace_id, 'parent', true, service, name
FROM topology SEMI JOIN judged USING (trace_id)
WHERE orphan
UNION ALL
SELECT trace_id, 'answer', NOT error, caller, service
FROM expected WHERE service IS NOT NULL AND NOT async
UNION ALL
SELECT trace_id, 'uncovered', false, caller, callee
FROM covered WHERE server_ns < client_ns / 2 AND client_ns - server_ns > 50000000
UNION ALL
SELECT trace_id, CASE WHEN async THEN 'consumer' ELSE 'peer' END, false, caller, callee
FROM expected WHERE (service IS NULL OR async) AND NOT uninstrumented
