"""Facts: what they may be, how they are stored and read."""
