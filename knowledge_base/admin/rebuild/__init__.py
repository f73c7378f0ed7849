"""Rebuilding a search index beside the live one."""
