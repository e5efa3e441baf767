"""Packages of random weights at the sizes that benchmarks measure: a module for each family."""
