"""Configuration of the documentation site, which Sphinx makes from these pages."""

project = "spanproof"
copyright = "The spanproof authors"  # noqa: A001 (the name that Sphinx reads)
extensions = ["myst_parser"]
exclude_patterns: list[str] = []
html_theme = "furo"
html_title = "spanproof"
myst_heading_anchors = 4
# Fences of this project's own languages are shown as text, and so are examples of what is refused.
suppress_warnings = ["misc.highlighting_failure"]
