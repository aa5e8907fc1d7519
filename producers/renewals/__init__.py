"""A service's facts in, its next step out."""
