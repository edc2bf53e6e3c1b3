"""Benchmarks of the running product: real processes, throw-away servers, one JSON document."""
