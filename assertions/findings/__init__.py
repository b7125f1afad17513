"""Results of plans: counts of findings, shares of traces, paths, and the verdict type.

Input: a plan and the selected traces. May import `triggers`, `query_lang` and `collector`.
"""
