"""Edits of what small language models know of synthetic worlds."""
