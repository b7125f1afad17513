"""Judges of claims: a claim and traces or responses in, a verdict out.

May import `explain`, `findings`, `triggers`, `query_lang` and `collector`.
"""
