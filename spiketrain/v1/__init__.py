"""Messages of the wire contract, generated from proto/ at build time."""
