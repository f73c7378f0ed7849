"""Retrieval: by words, by meaning, and fused."""
