"""Scalar twins of the kernels: same names and arguments, plain loops, the same bits."""
