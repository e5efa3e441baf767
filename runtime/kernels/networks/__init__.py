"""Whole networks in C: the core that all families share, and a module for each family."""
