"""Case files (``.case``): parser, variations, OTLP requests, a runner that compares verdicts, and a writer.

Input: the text of a case file, or stored traces. Output: one result per assertion, or a text.
May import all of `assertions` but `pytest_plugin`.
"""
