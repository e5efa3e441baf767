"""Kernels that training needs, with gradients."""
