"""Embedding: the service that everybody awaits, and the model that runs on this machine."""
