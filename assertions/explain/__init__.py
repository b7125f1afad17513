"""Explanations of verdicts: findings in; text, witnesses and the displayed trace out.

May import `findings`, `query_lang` and `collector`.
"""
