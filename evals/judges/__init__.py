"""Judges: they answer questions about an image."""
