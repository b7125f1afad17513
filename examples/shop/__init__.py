"""A small demo shop of real services, instrumented with OpenTelemetry."""
