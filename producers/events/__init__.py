"""What happened goes out to upstream: from the history to the exchange and to endpoints."""
