"""Proof files with the files that they use, and the variables that are set from outside."""
