"""What customers are asked to pay."""
