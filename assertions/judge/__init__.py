"""Plan -> findings -> verdict: settled and open traces, estimates, contracts, responses."""
