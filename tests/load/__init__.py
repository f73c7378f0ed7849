"""Load on an embedding endpoint, each figure beside its limit: ``python -m tests.load``."""
