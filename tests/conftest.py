"""Rules for the whole suite."""
