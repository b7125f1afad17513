-- The spans of the traces in `around`, with the facts that matter in their attributes, in the temporary table `fresh`.
CREATE OR REPLACE TEMP MACRO failed(status, http_status, rpc_status) AS
    status = 2
    OR coalesce(TRY_CAST(http_status AS INTEGER) >= 500, false)
    OR coalesce(rpc_status NOT IN ('0', 'OK'), false);

-- A redirect and a request for credentials are answered by another request, not by another try.
CREATE OR REPLACE TEMP MACRO answered_otherwise(http_status) AS
    coalesce(http_status IN ('401', '407') OR http_status LIKE '3__', false);

CREATE OR REPLACE TEMP MACRO worth_retrying(error, says_why, http_status) AS
    (error OR says_why OR coalesce(http_status IN ('408', '425', '429'), false))
    AND NOT answered_otherwise(http_status);

-- Where in its lists of attributes a span with these keys has each fact; there are far fewer lists of keys than spans.
CREATE OR REPLACE TEMP TABLE places AS
SELECT keys, {places}
FROM (
    SELECT DISTINCT attributes.keys AS keys FROM spans SEMI JOIN around USING (trace_id)
    WHERE span_key BETWEEN getvariable('first_key') AND getvariable('end_key')
);

CREATE OR REPLACE TEMP TABLE fresh AS
SELECT
    * REPLACE (CASE WHEN rpc_attempt THEN 3 ELSE kind END AS kind), kind AS kind_sent,
    failed(status, http_status, rpc_status) AS error
FROM (
    SELECT
        s.span_key, s.trace_id, a.dirty, s.span_id, s.parent_id, s.service, s.name, s.kind, s.start_ns, s.end_ns, s.status,
        s.resource_key,
        -- gRPC's own instrumentation has a span for each attempt, of no certain kind; each is an exit span
        -- (gRFC A66, A72)
        starts_with(s.name, 'Attempt.') AND p.attempts_before IS NOT NULL AS rpc_attempt,
        s.attributes.texts[p.http_status] AS http_status,
        s.attributes.texts[p.rpc_status] AS rpc_status,
        s.attributes.texts[coalesce(p.peer_name, p.db_system, p.messaging_system)] AS peer,
        s.attributes.texts[p.server_address] AS server_address,
        s.attributes.texts[p.server_port] AS server_port,
        TRY_CAST(s.attributes.texts[coalesce(p.resend_count, p.attempts_before)] AS INTEGER) AS counter,
        TRY_CAST(s.attributes.texts[p.deliveries] AS INTEGER) AS deliveries,
        p.error_type IS NOT NULL AS says_why,
        p.db_system IS NOT NULL AS is_db,
        p.messaging_system IS NOT NULL AS is_messaging,
        coalesce(p.rpc_system, p.rpc_service) IS NOT NULL AS is_rpc,
        coalesce(p.http_method, p.url, p.http_status) IS NOT NULL AS is_http
    FROM spans s
    JOIN around a ON a.trace_id = s.trace_id
    JOIN places p ON p.keys = s.attributes.keys
    WHERE s.span_key BETWEEN getvariable('first_key') AND getvariable('end_key')
);
