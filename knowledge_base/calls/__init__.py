"""The public calls of ``KnowledgeBase``, by what they are about."""
