"""Everything out of a namespace into a file, and back in."""
