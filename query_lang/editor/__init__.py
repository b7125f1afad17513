"""Help for editors: highlighting and hover texts."""
