"""Near-duplicates, retention, namespaces and backups."""
