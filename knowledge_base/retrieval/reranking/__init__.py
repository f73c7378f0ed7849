"""Ranking hits anew by reading each beside the query."""
