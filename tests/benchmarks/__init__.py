"""One script a claim: `python -m tests.benchmarks.<name>`."""
