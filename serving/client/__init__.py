"""Clients in Python, with their access, retries and conversations."""
