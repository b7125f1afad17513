-- Deliveries of messages, so that the deliveries of one message in several traces are found: everything is derived again.
CREATE TABLE deliveries (
    trace_id    UUID NOT NULL,
    message     UBIGINT NOT NULL,
    is_unlinked BOOLEAN NOT NULL
);
UPDATE derivation SET last_span_key = -1;
