"""A proof from its trigger to its verdicts, as one stream of events."""
