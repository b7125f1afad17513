"""Case files (``.case``): parser, variations, OTLP requests, and a runner that compares verdicts.

Input: the text of a case file. Output: one result per assertion. May import all of `assertions` but `pytest_plugin`.
"""
