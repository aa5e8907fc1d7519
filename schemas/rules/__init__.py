"""What happens to services and what it costs: pure functions, no input or output."""
