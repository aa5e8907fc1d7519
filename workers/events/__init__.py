"""Events are delivered to the endpoints that upstream has registered (Standard Webhooks)."""
