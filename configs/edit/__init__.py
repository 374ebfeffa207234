"""Configurations of the study of edits."""
