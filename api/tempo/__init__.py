"""Tempo's HTTP API for Grafana: TraceQL, search and tags over the same store."""
