"""Spans of whole traces -> the position of each span: its parent, its entry span, the spans that wrap it."""
