"""Spans of new traces -> topology -> attempts -> logical calls, as rows of the derived tables."""
