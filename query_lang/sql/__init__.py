"""Parts of SQL: the dialect of the engine, and the tables, conditions and selections that claims read."""
