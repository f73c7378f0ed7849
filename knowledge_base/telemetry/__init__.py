"""Telemetry: what the package tells about its work, to whoever listens."""
