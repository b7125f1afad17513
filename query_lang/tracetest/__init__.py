"""Converter of Tracetest's test definitions to proofs. Reports each construct that has no equivalent."""
