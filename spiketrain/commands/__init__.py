"""One module a subcommand, each with a Typer application named `app`, imported when it is called."""
