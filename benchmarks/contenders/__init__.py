"""Who takes part in the benchmarks: the stores on each backend, and who can do the same work."""
