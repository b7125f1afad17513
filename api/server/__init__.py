"""The process of `spanproof serve`: receiver, HTTP API, metrics and self-tracing."""
