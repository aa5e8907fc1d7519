"""Customers are told what is due, in one mail, in their language."""
