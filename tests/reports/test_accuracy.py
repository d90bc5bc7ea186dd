from reports.accuracy import accuracy_tables


def test_settings_become_columns_and_measures_rows():
    tables = accuracy_tables(
        {
            "seen_easy": {"f1": 0.99, "scenes": 2000, "per_class": {"dog": 0.9, "cat": 1.0}},
            "unseen_style": {"f1": 0.91, "scenes": 500},
            "false_alarms": {"pictures": 400, "found_over_0.3": 0.01},
            "measured": {"date": "2026-01-01"},
        }
    )
    assert tables["columns"] == ["held-out scenes, easy", "style never seen, all backgrounds"]
    assert [row["cells"] for row in tables["rows"]] == [[0.99, 0.91], [2000, 500]]
    assert tables["folded"][0]["rows"] == [
        {"label": "dog", "cells": [0.9]},
        {"label": "cat", "cells": [1.0]},
    ]
    assert tables["facts"] == [
        ("false alarms", "pictures: 400; found over 0.3: 0.01"),
        ("measured", "date: 2026-01-01"),
    ]


def test_flat_figures_make_one_column():
    tables = accuracy_tables({"agreement": 0.9, "labelled_by": "two people"})
    assert [(row["label"], row["cells"]) for row in tables["rows"]] == [("agreement", [0.9])]
    assert tables["facts"] == [("labelled by", "two people")]


def test_a_judge_never_measured_has_no_table():
    assert accuracy_tables({}) is None
