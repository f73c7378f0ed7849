"""Answers: an LLM that is shown the passages which were found, and cites them."""
