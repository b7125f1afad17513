"""One module per command, with the options of that command."""
