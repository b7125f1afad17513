-- Which attempts belong together: derives `exchanges` and `calls` of what does not stand alone, which the temporary
-- table `linked` names.

-- T2: several arrivals of one service under one client span. An arrival is a further attempt where the one
-- before it, at the same operation, failed retryably or was still running.
CREATE OR REPLACE TEMP TABLE arrivals AS
WITH several AS (
    SELECT *
    FROM found
    WHERE shape = 'paired' AND client_key IN (
        SELECT client_key FROM pairs WHERE shape = 'paired' GROUP BY client_key HAVING count(*) > 1
    )
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

-- What the caller tried, one row per client span and callee, or per bare or message exchange; of these, what may be a
-- further attempt, or be followed by one: something at the same callee failed retryably, or is told to be a further one.
CREATE OR REPLACE TEMP TABLE doubtful AS
WITH suspects AS (
    SELECT trace_id, callee FROM found WHERE retryable OR resend_count >= 1
)
SELECT
    t.*,
    coalesce({http_method}, {rpc_method}) AS method,
    CASE
        WHEN {db_system} IS NOT NULL
            THEN concat_ws(' ', {db_system}, {db_namespace}, coalesce({db_statement}, x.name))
        WHEN coalesce({messaging_system}, {destination}) IS NOT NULL
            THEN concat_ws(' ', {messaging_system}, {destination}, {message_id}, x.name)
        WHEN {rpc_service} IS NOT NULL THEN concat_ws('/', {rpc_service}, {rpc_method})
        WHEN {url} IS NOT NULL THEN concat_ws(' ', {http_method}, {url})
        ELSE concat_ws(' ', x.name, coalesce({peer_name}, {server_address}), {server_port})
    END AS target
FROM (FROM found SEMI JOIN suspects USING (trace_id, callee)) t
LEFT JOIN spans x
    ON x.span_key = t.client_key AND x.span_key BETWEEN getvariable('first_key') AND getvariable('end_key')
WHERE t.exchange_key NOT IN (SELECT exchange_key FROM arrivals WHERE NOT is_last);

-- T1: a counter says which attempt this is. The one before it has the same parent, method and callee, and the count
-- before; of several, the last that failed or was still running, else the last. It is taken up once. Deliveries of
-- one message are counted by the consumer.
CREATE OR REPLACE TEMP TABLE successions AS
WITH preferred AS (
    SELECT t.exchange_key, b.exchange_key AS before_key, t.start_ns
    FROM doubtful t
    JOIN doubtful b
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
    FROM doubtful
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

CREATE OR REPLACE TEMP TABLE linked AS
SELECT exchange_key FROM successions
UNION
SELECT before_key FROM successions
UNION
SELECT exchange_key FROM arrivals;

CREATE OR REPLACE TEMP TABLE tries AS
SELECT * FROM found
WHERE exchange_key IN (FROM linked) AND exchange_key NOT IN (SELECT exchange_key FROM arrivals WHERE NOT is_last);

CREATE OR REPLACE TEMP TABLE chains AS
WITH RECURSIVE chain AS (
    SELECT exchange_key, exchange_key AS call_key, 0 AS tier
    FROM tries WHERE exchange_key NOT IN (SELECT exchange_key FROM successions)
    UNION ALL
    SELECT s.exchange_key, c.call_key, s.tier
    FROM chain c JOIN successions s ON s.before_key = c.exchange_key
)
SELECT * FROM chain;

CREATE OR REPLACE TEMP TABLE attempts AS
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
    network_ns, lag_ns, status, error, retryable, arrived, definite, dirty
FROM every e JOIN tiers t USING (call_key);

INSERT INTO exchanges BY NAME
SELECT * EXCLUDE (dirty) FROM attempts WHERE dirty;

INSERT INTO calls BY NAME
WITH counted AS (
    SELECT call_key, count(attempt) AS attempts, any_value(tier) AS tier FROM attempts GROUP BY call_key
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
JOIN counted n ON n.call_key = s.call_key
WHERE t.dirty;
