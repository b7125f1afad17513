"""Common parts of the commands: the Typer application, option groups, settings, console, server client."""
