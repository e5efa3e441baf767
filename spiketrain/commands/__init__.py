"""One module a subcommand, with a Typer application named `app`, imported when it is called."""
