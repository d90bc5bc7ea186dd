"""Labels files and judges against them: the bundled 300, a user's file, a run folder, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from evals.api import Detection, Identity
from evals.errors import InputError, UsageError
from evals.judging import agree, compare, verdicts_of_judge, verdicts_of_run
from evals.labels import bundled_path, picture_digest, read_labels
from evals.plugins.lookup import find_task


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


class OneThing:
    """Finds one object of the class that the picture's red value stands for, or nothing."""

    identity = Identity("one", "1", "", "stickers")
    classes = {10: "bench", 20: "cow"}

    def load(self) -> None: ...

    def close(self) -> None: ...

    def accuracy(self):
        return {}

    def detect(self, images, color_classes):
        names = [self.classes.get(image.getpixel((0, 0))[0]) for image in images]
        return [[Detection(n, (0, 0, 9, 9), 0.95)] if n else [] for n in names]


@pytest.fixture
def benches(tmp_path):
    """Five pictures of sample 00000, "a photo of a bench", whose labels are right except the last."""
    rows = []
    for index, (red, correct) in enumerate([(10, True), (20, False), (0, False), (10, True), (20, True)]):
        image = Image.new("RGB", (16, 16), (red, 0, 0))
        image.save(tmp_path / f"{index}.png")
        rows.append(
            {"sample_id": "00000", "image_index": index, "picture": f"{index}.png", "correct": correct,
             "sha256": picture_digest(image)}
        )  # fmt: skip
    return write(tmp_path / "labels.jsonl", {"task": "geneval", "domain": "stickers"}, *rows)


def test_the_bundled_labels_hold_together():
    """50 of each tag, every picture by its digest, every verdict by its parts, weights that add up to the pool."""
    labels = read_labels(bundled_path())
    specs = {s.id: s.metadata for s in find_task("geneval").samples()}
    assert len(labels.rows) == len(labels.judged) == 300
    by_tag: dict[str, float] = {}
    for label in labels.rows:
        spec = specs[label.sample_id]
        by_tag[spec["tag"]] = by_tag.get(spec["tag"], 0) + label.weight
        assert labels.picture(label).size == (64, 64)
        assert sorted(o["class"] for o in label.row["objects"]) == sorted(c["class"] for c in spec["include"])
        parts = [o["recognisable"] and o.get("color_right", True) for o in label.row["objects"]]
        parts.append(label.row.get("relation_right", True))
        if spec["tag"] == "counting":
            parts.append(label.row["count"] == spec["include"][0]["count"])
        assert all(parts) is label.correct, label.where
    assert {t: round(w) for t, w in by_tag.items()} == {
        "single_object": 80, "two_object": 99, "counting": 80, "colors": 94, "position": 200, "color_attr": 200,
    }  # fmt: skip
    assert sum(label.again is not None for label in labels.rows) >= 100


def test_a_users_labels_and_pictures(benches):
    labels, task = read_labels(benches), find_task("geneval")
    verdicts = verdicts_of_judge(labels, task, OneThing())
    assert [v["correct"] for v in verdicts] == [True, False, False, True, False]
    found = compare(labels, verdicts, {"00000": "single_object"})
    assert found["overall"]["agreement"]["value"] == 0.8
    assert found["overall"]["bias"]["value"] == -0.2
    (one,) = found["disagreements"]
    assert (one["image_index"], one["label"], one["verdict"]) == (4, True, False)
    assert "found 0" in one["reason"]


def test_labels_of_a_run_are_compared_with_its_stored_scores(benches, tmp_path):
    labels = read_labels(benches)
    outputs = [{"sample_id": "00000", "image_index": i, "path": f"{i}.png"} for i in range(5)]
    scores = [
        {"sample_id": "00000", "image_index": i, "value": v, "reason": "", "details": {}}
        for i, v in enumerate([1.0, 0.0, 0.0, 0.0, None])
    ]
    scores[4]["unscored"] = "judge failed"
    run = SimpleNamespace(root=tmp_path, outputs=lambda: iter(outputs), scores=lambda: iter(scores))
    verdicts = verdicts_of_run(labels, run)
    assert [v["correct"] for v in verdicts] == [True, False, False, False, None]
    found = compare(labels, verdicts, {"00000": "single_object"})
    assert found["without_verdict"] == 1 and found["overall"]["n"] == 4
    assert found["overall"]["agreement"]["value"] == 0.75


def test_labels_of_other_pictures_than_the_runs_are_refused(benches, tmp_path):
    labels = read_labels(benches)
    outputs = [{"sample_id": "00000", "image_index": i, "path": "0.png"} for i in range(5)]
    scores = [
        {"sample_id": "00000", "image_index": i, "value": 1.0, "reason": "", "details": {}} for i in range(5)
    ]
    run = SimpleNamespace(root=tmp_path, outputs=lambda: iter(outputs), scores=lambda: iter(scores))
    with pytest.raises(InputError, match=r"labels.jsonl:3: the label belongs to another picture"):
        verdicts_of_run(labels, run)
    scores.pop()
    outputs[1:] = [{"sample_id": "00000", "image_index": i, "path": f"{i}.png"} for i in range(1, 5)]
    with pytest.raises(InputError, match="image 4 has no score in"):
        verdicts_of_run(labels, run)


def test_unsure_labels_and_a_second_reading_are_told_apart(tmp_path):
    rows = [
        {"sample_id": "00000", "image_index": i, "correct": c, "unsure": u, "again": {"correct": a}}
        for i, (c, u, a) in enumerate([(True, False, True), (True, True, False), (False, False, False)])
    ]
    rows.append({"sample_id": "00000", "image_index": 3, "correct": None})
    labels = read_labels(write(tmp_path / "l.jsonl", *rows))
    verdicts = [{"correct": c, "reason": "", "by_pixels": None} for c in (True, False, False)]
    found = compare(labels, verdicts, {"00000": "a"})
    assert (found["pictures"], found["not_judgeable"], found["unsure"]) == (4, 1, 1)
    assert found["overall"]["n"] == 3 and found["overall_sure"]["n"] == 2
    assert found["overall_sure"]["agreement"]["value"] == 1
    assert found["labeller"]["n"] == 3 and found["labeller"]["agreement"]["value"] == pytest.approx(0.6667)


def test_colours_read_from_the_pixels_stand_apart(tmp_path):
    rows = [{"sample_id": "00259", "image_index": i, "correct": i < 2} for i in range(4)]
    labels = read_labels(write(tmp_path / "l.jsonl", *rows))
    verdicts = [
        {"correct": c, "reason": "", "by_pixels": p}
        for c, p in [(True, True), (False, True), (False, False), (True, False)]
    ]
    found = compare(labels, verdicts, {"00259": "colors"})
    assert found["groups"]["colors"]["agreement"]["value"] == 0.5  # the main figures are the judge's own
    assert found["by_pixels"]["colors"]["with_labels"]["agreement"]["value"] == 1.0
    assert found["by_pixels"]["colors"]["with_judge"]["agreement"]["value"] == 0.5


BAD = [
    ([{"sample_id": "00000"}], r"l.jsonl:1: correct is missing"),
    ([{"sample_id": "00000", "correct": "yes"}], r"l.jsonl:1: correct must be true or false, got \"yes\""),
    ([{"sample_id": 3, "correct": True}], r"l.jsonl:1: sample_id must be a string, got 3"),
    ([{"correct": True}], r"l.jsonl:1: sample_id is missing"),
    ([{"sample_id": "00000", "correct": True, "weight": 0}], r"weight must be greater than 0, got 0"),
    ([{"sample_id": "00000", "correct": True, "image_index": -1}], r"image_index must be at least 0, got -1"),
    ([{"sample_id": "00000", "correct": True}] * 2, r"l.jsonl:2: sample 00000, image 0 is labelled twice"),
    ([{"sample_id": "00000", "correct": None}], r"no row has `correct` true or false"),
    ([{"task": "geneval"}], r"no row has `correct` true or false"),
    ([{"task": "geneval"}, {"sample_id": "99999", "correct": True}], r"l.jsonl:2: sample '99999' is not in the task"),
    ([{"task": "geneval"}, {"sample_id": "00000", "correct": True, "prompt": "a cow"}], r"prompt 'a cow' is not that"),
    ([{"task": "geneval"}, {"sample_id": "00000", "correct": True}], r"l.jsonl:2: no picture: give `picture`"),
    ([{"task": "geneval"}, {"sample_id": "00000", "correct": True, "picture": "no.png"}], r"no.png cannot be read"),
    ([{"task": "geneval", "sheet": "no.webp"}, {"sample_id": "00000", "correct": True, "cell": 0}], r"`cell_px` and"),
    ([{"sample_id": "00000", "correct": True}], r"does not say whose prompts it labels: give --task"),
]  # fmt: skip


@pytest.mark.parametrize(("rows", "message"), BAD)
def test_bad_labels_are_refused_by_line(tmp_path, rows, message, monkeypatch):
    monkeypatch.setattr("evals.judging._judge", lambda *_: OneThing())
    with pytest.raises(UsageError, match=message):
        agree(write(tmp_path / "l.jsonl", *rows))


def test_a_cell_outside_the_sheet_is_refused(tmp_path):
    Image.new("RGB", (32, 16)).save(tmp_path / "s.png")
    header = {"sheet": "s.png", "cell_px": 16, "columns": 2}
    labels = read_labels(
        write(tmp_path / "l.jsonl", header, *({"sample_id": str(i), "correct": True, "cell": i} for i in (0, 1, 2, -1)))
    )
    assert labels.picture(labels.rows[1]).size == (16, 16)
    for row in labels.rows[2:]:
        with pytest.raises(InputError, match="lies outside the sheet"):
            labels.picture(row)


def test_tasks_and_domains_that_do_not_fit_are_refused(tmp_path):
    row = {"sample_id": "00000", "correct": True}
    labels = write(tmp_path / "l.jsonl", {"task": "geneval", "domain": "drawings"}, row)
    with pytest.raises(UsageError, match="domain 'drawings': give --judge"):
        agree(labels)
    with pytest.raises(UsageError, match="--task dpg, the labels' task geneval"):
        agree(labels, task_name="dpg")
    with pytest.raises(UsageError, match="Unknown judge 'stikers'.*stickers"):
        agree(labels, judge_name="stikers")
