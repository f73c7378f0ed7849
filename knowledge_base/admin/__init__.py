"""Jobs that look after a whole namespace."""
