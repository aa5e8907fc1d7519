"""What a person or the guard stops, starts and retries."""
