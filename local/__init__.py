"""The embedded stack: Postgres, Storage and AWS on this machine, for tests, the demo and benchmarks; never deployed."""
