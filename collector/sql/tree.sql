-- Where each span of `fresh` stands: derives `tree`, and leaves the spans with that in the temporary table `placed`.
-- What is so of most spans goes a short way; where ids are shared, or sidecars stand between, it is told apart first.

-- A parent is found by its span id. Where two spans share an id (a server that took over its client's),
-- the one in the child's own service is meant; and such a server's parent is that client.
CREATE OR REPLACE TEMP TABLE sharing AS
FROM fresh SEMI JOIN repeated USING (trace_id, span_id);

CREATE OR REPLACE TEMP TABLE chosen AS
WITH candidates AS (
    SELECT s.span_key AS child, p.span_key AS parent, p.service = s.service AS same, p.kind, p.start_ns
    FROM fresh s JOIN sharing p ON p.trace_id = s.trace_id AND p.span_id = s.parent_id
    WHERE p.span_key <> s.span_key
        AND NOT (s.kind = 2 AND p.kind = 2 AND p.span_id = s.span_id)
    UNION  -- both may share theirs
    SELECT s.span_key, p.span_key, p.service = s.service, p.kind, p.start_ns
    FROM sharing s JOIN fresh p ON p.trace_id = s.trace_id AND p.span_id = s.parent_id
    WHERE p.span_key <> s.span_key
        AND NOT (s.kind = 2 AND p.kind = 2 AND p.span_id = s.span_id)
    UNION ALL
    SELECT s.span_key, p.span_key, true, 99, p.start_ns
    FROM sharing s JOIN sharing p ON p.trace_id = s.trace_id AND p.span_id = s.span_id
    WHERE s.kind = 2 AND p.kind = 3
)
SELECT child, arg_min(parent, (kind <> 99, NOT same, kind <> 2, start_ns)) AS parent
FROM candidates
GROUP BY child;

CREATE OR REPLACE TEMP TABLE edges AS
SELECT s.span_key AS child, p.span_key AS parent, p.service AS parent_service, p.kind AS parent_kind
FROM fresh s JOIN fresh p ON p.trace_id = s.trace_id AND p.span_id = s.parent_id
WHERE p.span_key <> s.span_key AND s.span_key NOT IN (SELECT child FROM chosen)
UNION ALL
SELECT c.child, p.span_key, p.service, p.kind FROM chosen c JOIN fresh p ON p.span_key = c.parent;

-- What came through a sidecar is taken to come from whoever asked the sidecar.
CREATE OR REPLACE TEMP TABLE past_proxies AS
WITH RECURSIVE climb AS (
    SELECT e.child, e.parent, 0 AS hops
    FROM edges e SEMI JOIN proxies x ON x.service = e.parent_service JOIN fresh c ON c.span_key = e.child
    WHERE c.service NOT IN (FROM proxies)
    UNION ALL
    SELECT c.child, e.parent, c.hops + 1
    FROM climb c JOIN fresh p ON p.span_key = c.parent AND p.service IN (FROM proxies)
    LEFT JOIN edges e ON e.child = c.parent
    WHERE c.hops < 1000  -- their parents may form a circle
)
SELECT child, arg_max(parent, hops) AS parent FROM climb GROUP BY child HAVING max(hops) > 0;

UPDATE edges SET parent = found.parent, parent_service = found.service, parent_kind = found.kind
FROM (
    SELECT a.child, a.parent, p.service, p.kind FROM past_proxies a LEFT JOIN fresh p ON p.span_key = a.parent
) found
WHERE found.child = edges.child;

CREATE OR REPLACE TEMP TABLE steps AS
SELECT
    f.trace_id, f.span_key, e.parent AS parent_key, f.kind, e.parent_kind,
    f.service <> e.parent_service AS other,
    e.child IS NULL AND f.parent_id IS NOT NULL AND g.span_id IS NULL AS orphan
FROM fresh f
LEFT JOIN edges e ON e.child = f.span_key
LEFT JOIN triggers g ON g.trace_id = f.trace_id AND g.span_id = f.parent_id;

-- `met` is what comes first going up from a span through its own service: 1 a SERVER or CONSUMER, 2 an exit
-- span, 0 neither. Spans whose parents form a circle are reached from nowhere; they are taken for orphans.
CREATE OR REPLACE TEMP TABLE walked AS
WITH RECURSIVE walk AS (
    SELECT
        span_key, parent_key, orphan,
        CASE WHEN NOT orphan OR kind IN (2, 5) THEN span_key END AS entry_key,
        NOT orphan OR kind IN (2, 5) AS is_entry,
        NOT orphan AS definite,
        0 AS depth, 0 AS met, NULL::INTEGER AS parent_kind, NULL::BOOLEAN AS other
    FROM steps WHERE parent_key IS NULL
    UNION ALL
    SELECT
        span_key, parent_key, false,
        CASE WHEN other OR (kind IN (2, 5) AND met <> 1) THEN span_key ELSE above END,
        other OR (kind IN (2, 5) AND met <> 1),
        other OR definite,
        depth, met, parent_kind, other
    FROM (
        SELECT
            s.span_key, s.parent_key, s.kind, s.other, s.parent_kind,
            CASE
                WHEN s.other THEN 0
                WHEN s.parent_kind IN (2, 5) THEN 1
                WHEN s.parent_kind IN (3, 4) THEN 2
                ELSE w.met
            END AS met,
            w.entry_key AS above, w.definite, w.depth + 1 AS depth
        FROM walk w JOIN steps s ON s.parent_key = w.span_key
    )
)
SELECT span_key, parent_key, orphan, entry_key, is_entry, definite, depth, parent_kind, other FROM walk
UNION ALL
SELECT
    span_key, NULL, true, CASE WHEN kind IN (2, 5) THEN span_key END, kind IN (2, 5), false, 0, NULL, NULL
FROM steps ANTI JOIN walk USING (span_key);

CREATE OR REPLACE TEMP TABLE placed AS
SELECT f.*, w.* EXCLUDE (span_key) FROM fresh f JOIN walked w ON w.span_key = f.span_key;

DROP TABLE fresh;
DROP TABLE edges;
DROP TABLE steps;
DROP TABLE walked;

INSERT INTO tree BY NAME
SELECT
    trace_id, span_key, parent_key, orphan, entry_key, is_entry, definite, depth, error, service, name, kind_sent AS kind,
    start_ns, end_ns, resource_key
FROM placed WHERE dirty;
