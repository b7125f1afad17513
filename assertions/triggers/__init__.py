"""Sends the requests whose traces are judged."""
