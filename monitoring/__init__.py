"""What people watch: metrics and the audit."""
