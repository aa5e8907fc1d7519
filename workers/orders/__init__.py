"""Orders become payment requests; complete orders end."""
