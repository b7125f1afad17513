"""Whole traces: completeness, live traces, retention, and the catalog of received names."""
