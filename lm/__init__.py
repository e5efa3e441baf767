"""What a model is (torch)."""
