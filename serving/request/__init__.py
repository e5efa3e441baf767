"""Requests and chats, their preparation, constraints and templates."""
