"""Renders verdicts; none of these modules judges anything."""
