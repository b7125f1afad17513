"""The process of `spanproof serve`: receiver, HTTP API, metrics and traces of its own work."""
