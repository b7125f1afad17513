"""spanproof turns the traces that services already emit into proofs about their requests."""

__version__ = "0.1.0"
