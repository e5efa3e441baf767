"""Conversations that are kept: their store, what they use, and their turns."""
