"""Metrics: all scores of a run -> one figure with its interval."""
