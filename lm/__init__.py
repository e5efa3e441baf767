"""Model families in torch, their checkpoints, and their export to runtime packages."""
