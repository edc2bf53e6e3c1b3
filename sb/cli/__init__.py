"""The command line: the only code that joins API, worker and agent, each imported when needed."""
