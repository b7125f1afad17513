"""What commands share: the Typer application, option groups, settings, console, server client."""
