"""Money is taken, invoiced and given back."""
