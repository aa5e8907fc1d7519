"""The command line, and the modes that run everything in one place."""
