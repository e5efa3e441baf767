"""Measurements of packages on text."""
