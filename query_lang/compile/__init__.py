"""Checked claim -> plan (one SQL query and how its findings decide); one module per kind of claim."""
