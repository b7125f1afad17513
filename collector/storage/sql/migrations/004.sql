-- Traces that began up to then were forgotten. What an older spanproof has forgotten, nobody knows.
CREATE TABLE forgetting (
    last_start_ns BIGINT
);
INSERT INTO forgetting VALUES (NULL);
