"""Findings -> words and evidence: what was seen, what was expected, what came nearest."""
