"""Documents: files and long texts, read, cut along their structure and kept."""
