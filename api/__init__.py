"""The interfaces of spanproof: the command line and the HTTP API."""
