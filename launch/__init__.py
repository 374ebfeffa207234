"""Command line programs, started with python -m launch.NAME."""
