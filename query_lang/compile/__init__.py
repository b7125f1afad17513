"""Checked claim -> plan: one SQL query, and how its findings decide. One module per kind of claim."""
