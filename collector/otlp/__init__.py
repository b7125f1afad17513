"""OTLP bytes or JSON -> Arrow columns, redacted and validated; and back to OTLP."""
