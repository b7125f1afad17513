"""The HTTP API: one module per resource, and the reading and execution of its queries."""
