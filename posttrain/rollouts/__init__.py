"""Sampling completions, and keeping them."""
