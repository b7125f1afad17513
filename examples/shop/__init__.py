"""A small shop of real services, instrumented with OpenTelemetry, that spanproof is shown on."""
