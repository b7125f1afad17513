"""Case files: traces, claims and the verdicts they must get, in one text."""
