"""The search index of each namespace: its schema, generations, queries, and the indexer that fills in the vectors."""
