"""Everything between the package and Redis: pools, the guarded client, the breaker, deadlines, the embedded server."""
