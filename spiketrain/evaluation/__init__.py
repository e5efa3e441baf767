"""What a package measures on text."""
