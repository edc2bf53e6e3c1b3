"""One measure per file; each returns the JSON of its results."""
