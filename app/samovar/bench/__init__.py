"""Benchmarks that drive the engine as the screens do. A front end: it knows `core` and `client` alone."""
