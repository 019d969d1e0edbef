"""Benchmarks of mpr. Most compare mpr with what a user would use without mpr. `python -m benchmarks` runs them."""
