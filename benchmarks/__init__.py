"""Benchmarks of mpr, each beside what a user would use without it. `python -m benchmarks` runs all of them."""
