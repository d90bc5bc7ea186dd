"""OpenAI-compatible endpoints over bounded HTTP exchanges."""
