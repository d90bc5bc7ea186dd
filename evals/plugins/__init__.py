"""Names to plug-ins: looked up, checked before use, and what they need of each other."""
