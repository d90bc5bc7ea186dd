from types import SimpleNamespace

from reports.accuracy import accuracy_tables, readings_agreement


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


LABELLED = {
    "verdicts": 4,
    "verdicts_by_tag": {"colors": 2, "position": 2},
    "verdict_agreement": 0.8,
    "verdict_agreement_ci95": [0.7, 0.9],
    "verdict_agreement_by_tag": {"colors": 0.7, "position": 0.9},
    "verdict_agreement_by_tag_ci95": {"colors": [0.5, 0.8]},
    "kappa": 0.5,
    "kappa_ci95": None,
    "kappa_by_tag": {"colors": 0.4, "position": None},
    "bias": 0.05,
    "bias_ci95": [-0.01, 0.11],
    "bias_by_tag": {"colors": 0.1, "position": 0.0},
    "unsure": 1,
    "verdict_agreement_sure": 0.85,
    "kappa_sure": 0.6,
    "labeller": "two people",
}


def test_agreement_with_labels_has_a_table_of_its_own():
    tables = accuracy_tables({"nano_pictures": LABELLED, "seen_easy": {"f1": 0.99}})
    assert tables["columns"] == ["held-out scenes, easy"]
    assert [row["label"] for row in tables["own"]["rows"]] == ["colors", "position", "overall"]
    colors, position, overall = tables["own"]["rows"]
    assert colors["agreement"] == (0.7, [0.5, 0.8]) and position["agreement"] == (0.9, None)
    assert position["kappa"] == (None, None) and overall["bias"] == (0.05, [-0.01, 0.11])
    assert tables["own"]["sentences"] == [
        "Labelled by two people.",
        "1 of the labels are unsure; without them agreement is 0.850, kappa 0.600.",
    ]
    assert not any("nano" in name for name, _ in tables["facts"])


def test_labels_alone_leave_the_other_tables_empty():
    tables = accuracy_tables({"nano_pictures": LABELLED})
    assert tables["own"] and tables["columns"] == tables["rows"] == tables["folded"] == []


def test_without_labels_there_is_no_such_table():
    assert accuracy_tables({"seen_easy": {"f1": 0.99}})["own"] is None


def test_both_readings_of_colours_agree_where_the_verdicts_are_equal():
    pictures = [
        SimpleNamespace(value=value, details={"pixel_color_correct": by_pixels})
        for value, by_pixels in [(1.0, True), (0.0, False), (1.0, False), (0.0, None)]
    ]
    assert readings_agreement(pictures) == 2 / 3
    assert readings_agreement([SimpleNamespace(value=1.0, details={})]) is None
