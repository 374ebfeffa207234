"""Edits of facts: which way of changing one works, and what else moves."""
