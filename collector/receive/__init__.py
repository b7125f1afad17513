"""OTLP endpoints over gRPC and HTTP: addresses, TLS, authentication, limits, status of a rejection."""
