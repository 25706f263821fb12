"""Every performance figure as a ratio of paired runs: ``python -m benchmarks [names…] [--quick]``."""
