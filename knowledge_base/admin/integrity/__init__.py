"""Comparing what is stored with what is derived from it, and mending it."""
