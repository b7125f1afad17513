-- Start of the latest deleted trace. Deletions by older versions are unknown.
CREATE TABLE forgetting (
    last_start_ns BIGINT
);
INSERT INTO forgetting VALUES (NULL);
