"""Receives OTLP traces and stores them as spans and calls."""
