"""One reader per format: a pure function from the bytes of a file to its blocks."""
