"""Reports of runs: events and documents in, text and files out. No module judges anything.

May import `run`, `judge`, `explain` and `findings`.
"""
