-- Span ids that occur more than once in a trace, in the temporary table `repeated`; duplicates of a span are dropped.
CREATE OR REPLACE TEMP TABLE repeated AS
SELECT trace_id, span_id
FROM spans SEMI JOIN around USING (trace_id)
WHERE span_key BETWEEN getvariable('first_key') AND getvariable('end_key')
GROUP BY ALL HAVING count(*) > 1;

DELETE FROM spans WHERE span_key IN (
    SELECT span_key FROM spans SEMI JOIN repeated USING (trace_id, span_id)
    WHERE span_key BETWEEN getvariable('first_key') AND getvariable('end_key')
    QUALIFY row_number() OVER (PARTITION BY trace_id, span_id, kind, service ORDER BY end_ns DESC, span_key) > 1
);
