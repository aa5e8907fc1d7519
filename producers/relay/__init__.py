"""From the ledger to the broker."""
