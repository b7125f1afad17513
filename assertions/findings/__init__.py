"""What a plan found: counts of findings, shares of traces, paths, and the verdict they lead to."""
