"""Benchmarks: each prints what it measured beside a peer or a limit, in the same run."""
