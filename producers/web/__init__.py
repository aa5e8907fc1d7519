"""What every process that is reached over HTTP shares: serving, headers, limits, health."""
