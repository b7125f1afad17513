-- Derives `exchanges` and `calls` of what stands alone: calls of one attempt, which are most.
INSERT INTO exchanges BY NAME
SELECT
    trace_id, exchange_key AS call_key, exchange_key, 1 AS attempt, 0 AS tier, shape, caller, callee, operation, address,
    protocol, async, caller_entry, callee_entry, client_key, server_key, start_ns, end_ns,
    end_ns - start_ns AS duration_ns,
    network_ns, lag_ns, status, error, retryable, false AS arrived, definite
FROM found WHERE dirty AND exchange_key NOT IN (FROM linked);

INSERT INTO calls BY NAME
SELECT
    trace_id, exchange_key AS call_key, 1 AS attempts, 0 AS tier, shape, caller, callee, operation, protocol, async,
    caller_entry, callee_entry, client_key, server_key, start_ns, end_ns,
    end_ns - start_ns AS duration_ns,
    network_ns, lag_ns, status, error, error OR retryable AS failed, definite
FROM found WHERE dirty AND exchange_key NOT IN (FROM linked);

DROP TABLE found;
