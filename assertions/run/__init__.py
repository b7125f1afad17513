"""Execution of proofs, from the trigger to the verdicts: proofs in, one stream of events out.

May import `judge`, `explain`, `findings`, `triggers`, `query_lang` and `collector`.
"""
