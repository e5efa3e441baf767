"""What a model does (NumPy, Cython)."""
