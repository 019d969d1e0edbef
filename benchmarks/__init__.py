"""Benchmarks of mpr, each beside what a user would take instead. `python -m benchmarks` runs all of them."""
