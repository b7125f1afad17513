"""Traces in files: read in every format that tools leave them in, written in those that tools take."""
