-- Derives `tree`, `exchanges`, `calls`, `entry_links` and `continuations` for the traces in the temporary table `dirty`.
-- `fresh` holds their spans with the attributes that matter here (made by calls.py from semconv.py).

CREATE OR REPLACE TEMP MACRO failed(status, http_status, rpc_status) AS
    status = 2
    OR coalesce(TRY_CAST(http_status AS INTEGER) >= 500, false)
    OR coalesce(rpc_status NOT IN ('0', 'OK'), false);

-- A redirect and a request for credentials are answered by another request, not by another try.
CREATE OR REPLACE TEMP MACRO answered_otherwise(http_status) AS
    coalesce(http_status IN ('401', '407') OR http_status LIKE '3__', false);

CREATE OR REPLACE TEMP MACRO worth_retrying(error, error_type, http_status) AS
    (error OR error_type IS NOT NULL OR coalesce(http_status IN ('408', '425', '429'), false))
    AND NOT answered_otherwise(http_status);

-- ## Where each span stands -------------------------------------------------------------------------

-- A parent is found by its span id. Where two spans share an id (a server that took over its client's),
-- the one in the child's own service is meant; and such a server's parent is that client.
CREATE OR REPLACE TEMP TABLE edges AS
WITH candidates AS (
    SELECT s.span_key AS child, p.span_key AS parent, p.service = s.service AS same, p.kind, p.start_ns
    FROM fresh s JOIN fresh p ON p.trace_id = s.trace_id AND p.span_id = s.parent_id
    WHERE p.span_key <> s.span_key
        AND NOT (s.kind = 2 AND p.kind = 2 AND p.span_id = s.span_id)
    UNION ALL
    SELECT s.span_key, p.span_key, true, 99, p.start_ns
    FROM fresh s JOIN fresh p ON p.trace_id = s.trace_id AND p.span_id = s.span_id
    WHERE s.kind = 2 AND p.kind = 3
)
SELECT child, arg_min(parent, (kind <> 99, NOT same, kind <> 2, start_ns)) AS parent
FROM candidates
GROUP BY child;

-- What came through a sidecar is taken to come from whoever asked the sidecar.
CREATE OR REPLACE TEMP TABLE past_proxies AS
WITH RECURSIVE climb AS (
    SELECT e.child, e.parent, 0 AS hops FROM edges e JOIN fresh c ON c.span_key = e.child
    WHERE c.service NOT IN (FROM proxies)
    UNION ALL
    SELECT c.child, e.parent, c.hops + 1
    FROM climb c JOIN fresh p ON p.span_key = c.parent AND p.service IN (FROM proxies)
    LEFT JOIN edges e ON e.child = c.parent
    WHERE c.hops < 1000  -- their parents may form a circle
)
SELECT child, arg_max(parent, hops) AS parent FROM climb GROUP BY child HAVING max(hops) > 0;

UPDATE edges SET parent = p.parent FROM past_proxies p WHERE p.child = edges.child;

CREATE OR REPLACE TEMP TABLE steps AS
SELECT
    f.trace_id, f.span_key, e.parent AS parent_key, f.service, f.kind,
    failed(f.status, f.http_status, f.rpc_status) AS error,
    p.service AS parent_service, p.kind AS parent_kind,
    e.child IS NULL AND f.parent_id IS NOT NULL AND g.span_id IS NULL AS orphan
FROM fresh f
LEFT JOIN edges e ON e.child = f.span_key
LEFT JOIN fresh p ON p.span_key = e.parent
LEFT JOIN triggers g ON g.trace_id = f.trace_id AND g.span_id = f.parent_id;

-- `met` is what comes first going up from a span through its own service: 1 a SERVER or CONSUMER, 2 an exit
-- span, 0 neither. Spans whose parents form a circle are reached from nowhere; they are taken for orphans.
INSERT INTO tree
WITH RECURSIVE walk AS (
    SELECT
        trace_id, span_key, parent_key, orphan,
        CASE WHEN NOT orphan OR kind IN (2, 5) THEN span_key END AS entry_key,
        NOT orphan OR kind IN (2, 5) AS is_entry,
        NOT orphan AS definite,
        0 AS depth, 0 AS met, error
    FROM steps WHERE parent_key IS NULL
    UNION ALL
    SELECT
        trace_id, span_key, parent_key, false,
        CASE WHEN other OR (kind IN (2, 5) AND met <> 1) THEN span_key ELSE above END,
        other OR (kind IN (2, 5) AND met <> 1),
        other OR definite,
        depth, met, error
    FROM (
        SELECT
            s.trace_id, s.span_key, s.parent_key, s.kind, s.error,
            s.service <> s.parent_service AS other,
            CASE
                WHEN s.service <> s.parent_service THEN 0
                WHEN s.parent_kind IN (2, 5) THEN 1
                WHEN s.parent_kind IN (3, 4) THEN 2
                ELSE w.met
            END AS met,
            w.entry_key AS above, w.definite, w.depth + 1 AS depth
        FROM walk w JOIN steps s ON s.parent_key = w.span_key
    )
),
circular AS (
    SELECT
        trace_id, span_key, NULL::BIGINT AS parent_key, true AS orphan,
        CASE WHEN kind IN (2, 5) THEN span_key END AS entry_key,
        kind IN (2, 5) AS is_entry, false AS definite, 0 AS depth, error
    FROM steps ANTI JOIN walk USING (span_key)
)
SELECT trace_id, span_key, parent_key, orphan, entry_key, is_entry, definite, depth, error FROM walk
UNION ALL
SELECT * FROM circular;

CREATE OR REPLACE TEMP TABLE placed AS
SELECT f.*, t.parent_key, t.entry_key, t.is_entry, t.definite, t.error
FROM fresh f JOIN tree t ON t.trace_id = f.trace_id AND t.span_key = f.span_key;

-- ## Who asked whom ---------------------------------------------------------------------------------

INSERT INTO entry_links
SELECT trace_id, span_key, link.trace_id, link.span_id
FROM (
    SELECT trace_id, span_key, unnest(links) AS link FROM fresh
    WHERE len(links) > 0 AND (kind = 5 OR kind = 2 AND parent_id IS NULL)
);

INSERT INTO continuations
SELECT DISTINCT s.trace_id, s.span_key, p.entry_key
FROM entry_links l
JOIN placed s ON s.trace_id = l.trace_id AND s.span_key = l.span_key AND s.kind = 2
JOIN placed p ON p.trace_id = l.linked_trace_id AND p.span_id = l.linked_span_id
WHERE p.service = s.service AND p.entry_key IS NOT NULL AND p.entry_key <> s.span_key;

CREATE OR REPLACE TEMP TABLE pairs AS
WITH by_parent AS (
    SELECT
        c.span_key AS client_key, s.span_key AS server_key,
        CASE
            WHEN c.kind NOT IN (3, 4) THEN 'bare'
            WHEN s.kind = 5 OR c.kind = 4 THEN 'message'
            ELSE 'paired'
        END AS shape
    FROM placed s JOIN placed c ON c.span_key = s.parent_key
    WHERE s.is_entry AND (c.kind IN (3, 4) OR c.service <> s.service)
        AND s.service NOT IN (FROM proxies) AND c.service NOT IN (FROM proxies)
),
by_link AS (
    SELECT DISTINCT p.span_key AS client_key, s.span_key AS server_key, 'message' AS shape
    FROM entry_links l
    JOIN placed s ON s.trace_id = l.trace_id AND s.span_key = l.span_key AND s.kind = 5
    JOIN placed p ON p.trace_id = l.linked_trace_id AND p.span_id = l.linked_span_id AND p.kind = 4
),
answered AS (
    SELECT * FROM by_parent
    UNION
    SELECT * FROM by_link
)
SELECT client_key, server_key, shape FROM answered
UNION ALL
SELECT span_key, NULL, 'unpaired' FROM placed
WHERE kind IN (3, 4) AND span_key NOT IN (SELECT client_key FROM answered WHERE shape <> 'bare')
    AND service NOT IN (FROM proxies)
    -- gRPC's attempts are the calls, not the span above them
    AND span_key NOT IN (SELECT parent_key FROM placed WHERE rpc_attempt AND parent_key IS NOT NULL);

-- The peer of a call that nobody answered. A host name's first label counts where such a service is known.
CREATE OR REPLACE TEMP TABLE found AS
WITH known AS (
    SELECT DISTINCT service FROM resources
),
named AS (
    SELECT
        c.trace_id, CAST(hash(p.client_key, p.server_key) >> 1 AS BIGINT) AS exchange_key, p.shape,
        c.service AS caller,
        coalesce(
            s.service, c.peer_name, c.db_system, c.messaging_system, k.service, nullif(c.server_address, ''), 'unknown'
        ) AS callee,
        coalesce(s.name, x.name) AS operation,
        nullif(concat_ws(':', x.server_address, x.server_port), '') AS address,
        CASE
            WHEN coalesce(x.db_system, s.db_system) IS NOT NULL THEN 'db'
            WHEN coalesce(x.messaging_system, s.messaging_system) IS NOT NULL OR p.shape = 'message' THEN 'messaging'
            WHEN coalesce(x.rpc_system, x.rpc_service, s.rpc_system, s.rpc_service) IS NOT NULL THEN 'rpc'
            WHEN coalesce(x.http_method, x.url, x.http_status, s.http_method, s.url, s.http_status) IS NOT NULL
                THEN 'http'
            ELSE 'other'
        END AS protocol,
        p.shape = 'message' OR c.kind = 4 AS async,  -- what nobody took up was sent all the same
        CASE WHEN p.shape = 'bare' THEN c.span_id ELSE x.parent_id END AS parent_id,
        c.entry_key AS caller_entry, s.entry_key AS callee_entry,
        x.span_key AS client_key, s.span_key AS server_key,
        coalesce(x.start_ns, s.start_ns) AS start_ns,
        CASE WHEN p.shape = 'message' THEN s.end_ns ELSE coalesce(x.end_ns, s.end_ns) END AS end_ns,
        CASE WHEN p.shape = 'paired' THEN (x.end_ns - x.start_ns) - (s.end_ns - s.start_ns) END AS network_ns,
        CASE WHEN p.shape = 'message' THEN s.start_ns - x.end_ns END AS lag_ns,
        coalesce(x.status, s.status) AS status,
        coalesce(x.http_status, s.http_status) AS http_status,
        coalesce(x.rpc_status, s.rpc_status) AS rpc_status,
        coalesce(x.error_type, s.error_type) AS error_type,
        s.start_ns AS server_start_ns, s.end_ns AS server_end_ns, s.status AS server_status, s.error AS server_error,
        worth_retrying(s.error, s.error_type, s.http_status) AS server_retryable,
        coalesce(x.http_method, x.rpc_method) AS method,
        coalesce(
            TRY_CAST(coalesce(x.resend_count, x.attempts_before) AS INTEGER),
            CASE WHEN p.shape = 'message' THEN TRY_CAST(s.deliveries AS INTEGER) - 1 END
        ) AS resend_count,
        CASE
            WHEN x.db_system IS NOT NULL
                THEN concat_ws(' ', x.db_system, x.db_namespace, coalesce(x.db_statement, x.name))
            WHEN coalesce(x.messaging_system, x.destination) IS NOT NULL
                THEN concat_ws(' ', x.messaging_system, x.destination, x.message_id, x.name)
            WHEN x.rpc_service IS NOT NULL THEN concat_ws('/', x.rpc_service, x.rpc_method)
            WHEN x.url IS NOT NULL THEN concat_ws(' ', x.http_method, x.url)
            ELSE concat_ws(' ', x.name, coalesce(x.peer_name, x.server_address), x.server_port)
        END AS target,
        c.definite AND coalesce(s.definite, false) AS definite
    FROM pairs p
    JOIN placed c ON c.span_key = p.client_key
    LEFT JOIN placed x ON x.span_key = p.client_key AND p.shape <> 'bare'  -- the exit span
    LEFT JOIN placed s ON s.span_key = p.server_key
    LEFT JOIN known k ON k.service = split_part(c.server_address, '.', 1)
)
SELECT *, worth_retrying(error, error_type, http_status) AS retryable
FROM (  -- a message has failed, too, where what took it up did
    SELECT *, failed(status, http_status, rpc_status) OR shape = 'message' AND server_error AS error FROM named
);

-- ## Which attempts belong together ------------------------------------------------------------------

-- T2: several arrivals of one service under one client span. An arrival is a further attempt where the one
-- before it, at the same operation, failed retryably or was still running.
CREATE OR REPLACE TEMP TABLE arrivals AS
WITH several AS (
    SELECT *
    FROM found
    WHERE shape = 'paired'
    QUALIFY count(*) OVER (PARTITION BY client_key, callee) > 1
),
followed AS (
    SELECT *, lag(server_retryable OR server_end_ns > next_start_ns) OVER here AS follows
    FROM (
        SELECT *, lead(server_start_ns) OVER here AS next_start_ns
        FROM several
        WINDOW here AS (PARTITION BY client_key, callee, operation ORDER BY server_start_ns, server_end_ns)
    )
    WINDOW here AS (PARTITION BY client_key, callee, operation ORDER BY server_start_ns, server_end_ns)
)
SELECT
    * EXCLUDE (follows, next_start_ns),
    coalesce(follows, false) OR coalesce(lead(follows) OVER here, false) AS is_attempt,
    row_number() OVER (PARTITION BY client_key, callee ORDER BY server_start_ns DESC, server_end_ns DESC) = 1 AS is_last
FROM followed
WINDOW here AS (PARTITION BY client_key, callee, operation ORDER BY server_start_ns, server_end_ns);

-- What the caller tried: one row per client span and callee, or per bare or message exchange.
CREATE OR REPLACE TEMP TABLE tries AS
SELECT * FROM found
WHERE exchange_key NOT IN (SELECT exchange_key FROM arrivals WHERE NOT is_last);

-- T1: a counter says which attempt this is. The one before it has the same parent, method and callee, and the count
-- before; of several, the last that failed or was still running, else the last. It is taken up once. Deliveries of
-- one message are counted by the consumer.
CREATE OR REPLACE TEMP TABLE successions AS
WITH preferred AS (
    SELECT t.exchange_key, b.exchange_key AS before_key, t.start_ns
    FROM tries t
    JOIN tries b
        ON b.trace_id = t.trace_id AND b.callee = t.callee
        AND b.parent_id IS NOT DISTINCT FROM t.parent_id AND b.method IS NOT DISTINCT FROM t.method
        AND (t.shape <> 'message' OR b.client_key = t.client_key)
        AND coalesce(b.resend_count, 0) = t.resend_count - 1
        AND coalesce(b.server_start_ns, b.start_ns) <= coalesce(t.server_start_ns, t.start_ns)
        AND NOT answered_otherwise(b.http_status)
    WHERE t.resend_count >= 1
    QUALIFY row_number() OVER (
        PARTITION BY t.exchange_key
        ORDER BY (b.retryable OR b.end_ns > t.start_ns) DESC, b.start_ns DESC, b.exchange_key
    ) = 1
),
explicit AS (
    SELECT exchange_key, before_key, 1 AS tier FROM preferred
    QUALIFY row_number() OVER (PARTITION BY before_key ORDER BY start_ns, exchange_key) = 1
),
-- T3: each retryable failure waits, in the order in which they ended, for the next start at the same target.
-- Reading ends as +1 and starts as -1 in time, a start that finds a failure waiting is one that does not
-- bring the sum below everything before it; the n-th such start succeeds the n-th failure.
candidates AS (
    SELECT
        *,
        (trace_id, caller_entry, parent_id, method, target, callee)::VARCHAR AS thing
    FROM tries
    WHERE shape IN ('paired', 'unpaired') AND NOT async
    WINDOW same_thing AS (PARTITION BY trace_id, caller_entry, parent_id, method, target, callee)
    QUALIFY count(*) OVER same_thing > 1 AND bool_or(retryable) OVER same_thing
),
turns AS (
    SELECT thing, exchange_key, start_ns AS at_ns, 1 AS phase, -1 AS delta
    FROM candidates WHERE exchange_key NOT IN (SELECT exchange_key FROM explicit)
    UNION ALL
    SELECT
        thing, exchange_key, greatest(start_ns, end_ns), CASE WHEN end_ns <= start_ns THEN 2 ELSE 0 END, 1
    FROM candidates WHERE retryable AND exchange_key NOT IN (SELECT before_key FROM explicit)
),
levels AS (
    SELECT *, sum(delta) OVER (PARTITION BY thing ORDER BY at_ns, phase, exchange_key) AS level FROM turns
),
matched AS (
    SELECT
        *,
        delta = 1 OR level >= least(0, coalesce(min(level) OVER (
            PARTITION BY thing ORDER BY at_ns, phase, exchange_key ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ), 0)) AS matches
    FROM levels
),
ranked AS (
    SELECT *, row_number() OVER (PARTITION BY thing, delta ORDER BY at_ns, phase, exchange_key) AS rank
    FROM matched WHERE matches
),
inferred AS (
    SELECT s.exchange_key, f.exchange_key AS before_key, 3 AS tier
    FROM ranked s JOIN ranked f ON f.thing = s.thing AND f.rank = s.rank AND s.delta = -1 AND f.delta = 1
    WHERE s.at_ns - f.at_ns <= (SELECT max_retry_gap_ns FROM rules)
)
SELECT * FROM explicit
UNION ALL
SELECT * FROM inferred;

CREATE OR REPLACE TEMP TABLE chains AS
WITH RECURSIVE chain AS (
    SELECT exchange_key, exchange_key AS call_key, 0 AS tier
    FROM tries WHERE exchange_key NOT IN (SELECT exchange_key FROM successions)
    UNION ALL
    SELECT s.exchange_key, c.call_key, s.tier
    FROM chain c JOIN successions s ON s.before_key = c.exchange_key
)
SELECT * FROM chain;

INSERT INTO exchanges BY NAME
WITH every AS (
    SELECT t.*, c.call_key, a.client_key IS NULL AS is_attempt, false AS arrived
    FROM tries t JOIN chains c USING (exchange_key)
    LEFT JOIN (SELECT DISTINCT client_key, callee FROM arrivals WHERE is_attempt) a
        ON a.client_key = t.client_key AND a.callee = t.callee
    WHERE t.exchange_key NOT IN (SELECT exchange_key FROM arrivals WHERE is_attempt)
    UNION ALL BY NAME
    SELECT
        a.* EXCLUDE (is_last, start_ns, end_ns, status, error, retryable, network_ns),
        a.server_start_ns AS start_ns, a.server_end_ns AS end_ns, a.server_status AS status,
        a.server_error AS error, a.server_retryable AS retryable, NULL AS network_ns,
        c.call_key, true AS arrived
    FROM arrivals a
    JOIN arrivals l ON l.client_key = a.client_key AND l.callee = a.callee AND l.is_last
    JOIN chains c ON c.exchange_key = l.exchange_key
    WHERE a.is_attempt OR NOT a.is_last
),
tiers AS (
    SELECT
        call_key,
        CASE
            WHEN bool_or(c.tier = 1) THEN 1
            WHEN bool_or(a.exchange_key IS NOT NULL) THEN 2
            ELSE max(c.tier)
        END AS tier
    FROM chains c LEFT JOIN arrivals a ON a.exchange_key = c.exchange_key AND a.is_attempt
    GROUP BY call_key
)
SELECT
    e.trace_id, call_key, exchange_key,
    CASE WHEN is_attempt
        THEN row_number() OVER (PARTITION BY call_key, is_attempt ORDER BY start_ns, end_ns, exchange_key)
    END AS attempt,
    t.tier, shape, caller, callee, operation, address, protocol, async, caller_entry, callee_entry, client_key, server_key,
    start_ns, end_ns,
    end_ns - start_ns AS duration_ns,
    network_ns, lag_ns, status, error, retryable, arrived, definite
FROM every e JOIN tiers t USING (call_key);

INSERT INTO calls BY NAME
WITH counted AS (
    SELECT call_key, count(attempt) AS attempts, any_value(tier) AS tier
    FROM exchanges SEMI JOIN dirty USING (trace_id)
    GROUP BY call_key
),
spans_of AS (
    SELECT
        c.call_key, min(t.start_ns) AS start_ns, max(t.end_ns) AS end_ns,
        arg_max(t.exchange_key, (t.start_ns, t.end_ns)) AS last_key
    FROM chains c JOIN tries t USING (exchange_key)
    GROUP BY c.call_key
)
SELECT
    t.trace_id, s.call_key, n.attempts, n.tier, t.shape, t.caller, t.callee, t.operation, t.protocol, t.async,
    t.caller_entry, t.callee_entry, t.client_key, t.server_key, s.start_ns, s.end_ns,
    s.end_ns - s.start_ns AS duration_ns,
    t.network_ns, t.lag_ns, t.status, t.error, t.error OR t.retryable AS failed, t.definite
FROM spans_of s
JOIN tries t ON t.exchange_key = s.last_key
JOIN counted n ON n.call_key = s.call_key;
