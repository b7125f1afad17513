-- The role of each span in its trace, which may differ from its kind: everything is derived again.
ALTER TABLE topology ADD COLUMN role INTEGER DEFAULT 0;
ALTER TABLE topology ALTER COLUMN role SET NOT NULL;
ALTER TABLE topology ALTER COLUMN role DROP DEFAULT;
UPDATE derivation SET last_span_key = -1;
