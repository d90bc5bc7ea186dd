"""Settings as people write them: YAML and JSON files, arguments after a name, and showing where values came from."""
