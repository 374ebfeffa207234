"""Benchmark cases; `python -m launch.bench` runs them."""
