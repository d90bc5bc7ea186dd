"""Files and text as the harness reads and writes them: whole, locked, checked, and free of secrets."""
