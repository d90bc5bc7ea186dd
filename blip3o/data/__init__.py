"""Training data: shards of records from archives, tables and folders; seeded mixtures that resume where they stood."""
