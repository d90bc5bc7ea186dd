"""Models behind the protocols of ``evals.api``."""
