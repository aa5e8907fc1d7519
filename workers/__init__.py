"""What takes work off the queues: one package per queue, each owning its rules."""
