"""OTLP bytes or JSON -> Arrow columns, validated and redacted; and back to OTLP."""
