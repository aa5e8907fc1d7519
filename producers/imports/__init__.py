"""Services of another system."""
