"""Experiment configurations, one file an experiment."""
