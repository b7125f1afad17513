-- Who asked whom: derives `entry_links` and `continuations`, and leaves the exchanges in the temporary table `found`.
-- Traces that are not `dirty` are there for what links lead to; nothing of theirs is written.

INSERT INTO entry_links
SELECT trace_id, span_key, link.trace_id, link.span_id
FROM (
    SELECT s.trace_id, s.span_key, unnest(s.links) AS link
    FROM spans s JOIN placed p ON p.span_key = s.span_key
    WHERE len(s.links) > 0 AND p.dirty AND (p.kind = 5 OR p.kind = 2 AND p.parent_id IS NULL)
        AND s.span_key BETWEEN getvariable('first_key') AND getvariable('end_key')
);

INSERT INTO continuations
SELECT DISTINCT s.trace_id, s.span_key, p.entry_key
FROM entry_links l
JOIN placed s ON s.trace_id = l.trace_id AND s.span_key = l.span_key AND s.kind = 2
JOIN placed p ON p.trace_id = l.linked_trace_id AND p.span_id = l.linked_span_id
WHERE p.service = s.service AND p.entry_key IS NOT NULL AND p.entry_key <> s.span_key AND s.dirty;

CREATE OR REPLACE TEMP TABLE pairs AS
SELECT
    s.parent_key AS client_key, s.span_key AS server_key,
    CASE
        WHEN s.parent_kind NOT IN (3, 4) THEN 'bare'
        WHEN s.kind = 5 OR s.parent_kind = 4 THEN 'message'
        ELSE 'paired'
    END AS shape
FROM placed s
WHERE s.is_entry AND s.parent_key IS NOT NULL AND (s.parent_kind IN (3, 4) OR s.other)
    AND s.service NOT IN (FROM proxies)
    AND s.parent_key NOT IN (SELECT span_key FROM placed WHERE service IN (FROM proxies));

INSERT INTO pairs
SELECT DISTINCT p.span_key, s.span_key, 'message'
FROM entry_links l
JOIN placed s ON s.trace_id = l.trace_id AND s.span_key = l.span_key AND s.kind = 5
JOIN placed p ON p.trace_id = l.linked_trace_id AND p.span_id = l.linked_span_id AND p.kind = 4
WHERE (p.span_key, s.span_key) NOT IN (SELECT (client_key, server_key) FROM pairs WHERE shape = 'message');

INSERT INTO pairs
SELECT span_key, NULL, 'unpaired' FROM placed
WHERE kind IN (3, 4) AND span_key NOT IN (SELECT client_key FROM pairs WHERE shape <> 'bare')
    AND service NOT IN (FROM proxies)
    -- gRPC's attempts are the calls, not the span above them
    AND span_key NOT IN (SELECT parent_key FROM placed WHERE rpc_attempt AND parent_key IS NOT NULL);

-- What the exit span says; a bare call has none.
CREATE OR REPLACE TEMP MACRO of_exit(shape, fact) AS CASE WHEN shape <> 'bare' THEN fact END;

-- The peer of a call that nobody answered. A host name's first label counts where such a service is known.
CREATE OR REPLACE TEMP TABLE found AS
WITH known AS (
    SELECT DISTINCT service FROM resources
),
asked AS (
    SELECT
        p.shape, p.server_key, c.trace_id, c.dirty, c.service AS caller, c.kind, c.peer, c.entry_key, c.definite,
        c.server_address AS host, k.service AS known, p.client_key AS from_key,
        CASE WHEN p.shape = 'bare' THEN c.span_id ELSE c.parent_id END AS parent_id,
        of_exit(p.shape, p.client_key) AS client_key, of_exit(p.shape, c.name) AS name,
        of_exit(p.shape, c.server_address) AS server_address, of_exit(p.shape, c.server_port) AS server_port,
        of_exit(p.shape, c.is_db) AS is_db, of_exit(p.shape, c.is_messaging) AS is_messaging,
        of_exit(p.shape, c.is_rpc) AS is_rpc, of_exit(p.shape, c.is_http) AS is_http,
        of_exit(p.shape, c.start_ns) AS start_ns, of_exit(p.shape, c.end_ns) AS end_ns,
        of_exit(p.shape, c.status) AS status, of_exit(p.shape, c.http_status) AS http_status,
        of_exit(p.shape, c.rpc_status) AS rpc_status, of_exit(p.shape, c.says_why) AS says_why,
        of_exit(p.shape, c.counter) AS counter
    FROM pairs p
    JOIN placed c ON c.span_key = p.client_key
    LEFT JOIN known k ON k.service = split_part(c.server_address, '.', 1)
),
named AS (
    SELECT
        x.trace_id, x.dirty, CAST(hash(x.from_key, x.server_key) >> 1 AS BIGINT) AS exchange_key, x.shape, x.caller,
        coalesce(s.service, x.peer, x.known, nullif(x.host, ''), 'unknown') AS callee,
        coalesce(s.name, x.name) AS operation,
        nullif(concat_ws(':', x.server_address, x.server_port), '') AS address,
        CASE
            WHEN coalesce(x.is_db, false) OR coalesce(s.is_db, false) THEN 'db'
            WHEN coalesce(x.is_messaging, false) OR coalesce(s.is_messaging, false) OR x.shape = 'message'
                THEN 'messaging'
            WHEN coalesce(x.is_rpc, false) OR coalesce(s.is_rpc, false) THEN 'rpc'
            WHEN coalesce(x.is_http, false) OR coalesce(s.is_http, false) THEN 'http'
            ELSE 'other'
        END AS protocol,
        x.shape = 'message' OR x.kind = 4 AS async,  -- what nobody took up was sent all the same
        x.parent_id, x.entry_key AS caller_entry, s.entry_key AS callee_entry, x.client_key, s.span_key AS server_key,
        coalesce(x.start_ns, s.start_ns) AS start_ns,
        CASE WHEN x.shape = 'message' THEN s.end_ns ELSE coalesce(x.end_ns, s.end_ns) END AS end_ns,
        CASE WHEN x.shape = 'paired' THEN (x.end_ns - x.start_ns) - (s.end_ns - s.start_ns) END AS network_ns,
        CASE WHEN x.shape = 'message' THEN s.start_ns - x.end_ns END AS lag_ns,
        coalesce(x.status, s.status) AS status,
        coalesce(x.http_status, s.http_status) AS http_status,
        coalesce(x.rpc_status, s.rpc_status) AS rpc_status,
        coalesce(x.says_why, false) OR coalesce(s.says_why, false) AS says_why,
        s.start_ns AS server_start_ns, s.end_ns AS server_end_ns, s.status AS server_status, s.error AS server_error,
        worth_retrying(s.error, s.says_why, s.http_status) AS server_retryable,
        coalesce(x.counter, CASE WHEN x.shape = 'message' THEN s.deliveries - 1 END) AS resend_count,
        x.definite AND coalesce(s.definite, false) AS definite
    FROM asked x
    LEFT JOIN placed s ON s.span_key = x.server_key
)
SELECT *, worth_retrying(error, says_why, http_status) AS retryable
FROM (  -- a message has failed, too, where what took it up did
    SELECT *, failed(status, http_status, rpc_status) OR shape = 'message' AND server_error AS error FROM named
);

DROP TABLE placed;
