"""The command line ``kb``; nothing heavy is imported before a command needs it."""

from knowledge_base.interfaces.cli.app import main

__all__ = ["main"]
