"""Edits of what language models know: which update changes it best?"""
