"""Traces as a whole: what is missing, what has just arrived, what is expired, what has been seen."""
