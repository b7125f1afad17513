"""Receive OTLP traces; store them as spans and calls."""
