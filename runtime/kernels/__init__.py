"""Compiled kernels and their scalar twins."""
