"""What is asked: requests, chats, their preparation, constraints and templates."""
