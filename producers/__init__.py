"""What puts work on the queues: the ledger, the relay and the doors orders come in by."""
