"""Turns Tracetest's definitions of tests into proofs, or says by name what has no equivalent."""
