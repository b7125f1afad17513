"""Trace files: import of OTLP, Jaeger and Zipkin; export to OTLP and Parquet."""
