"""Triggers: a ``when`` and its bindings in, requests with a trace context out, responses back.

May import `query_lang` and `collector`.
"""
