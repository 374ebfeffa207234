"""Adapters on a language model: what is trained, and what it brings."""
