"""lmms-eval, both ways: its tasks and models on our run-time, and our models on its own.

lmms-eval is an extra and heavy (6 to 20 s to import), so nothing here imports it before it is asked for.

    package.py    whether it is installed, and importing it quietly, late and off the network
    catalog.py    the names of its tasks, read from its YAML files without importing it
    loading.py    a name -> its task objects
    local_data.py local files in place of a hub data set
    documents.py  documents -> prompts, pictures, choices and rounds
    scoring.py    filters and `process_results`, kept as JSON
    figures.py    its aggregations as metrics with intervals
    plugin.py     the other way round: our models as `lmms-eval --model blip3o`
"""
