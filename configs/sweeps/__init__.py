"""Sweeps: lists of experiments for launch.sweep."""
