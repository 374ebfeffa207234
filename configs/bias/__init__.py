"""Bias in pruned vision models."""
