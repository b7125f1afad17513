"""Syntax tree -> diagnostics: names, types, units, constants, modules."""
