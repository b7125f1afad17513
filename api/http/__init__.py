"""The HTTP API: one module per resource, and how its questions are read and carried out."""
