"""Builds of the kernels for several instruction sets, and the choice among them."""
