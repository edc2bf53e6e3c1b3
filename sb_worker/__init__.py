"""The worker: background sweeps that move everything that has expired to its end state."""
