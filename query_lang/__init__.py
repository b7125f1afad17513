"""Proof language: text -> checked syntax tree -> SQL."""
