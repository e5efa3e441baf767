"""What a model is: families in torch, their checkpoints, their export to runtime packages."""
