"""The proof language: text to checked tree to SQL."""
