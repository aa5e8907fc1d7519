"""The handler protocol: claim, work, finish."""
