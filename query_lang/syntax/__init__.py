"""Text -> syntax tree with positions, and back: grammar, nodes, parser, formatter, printer."""
