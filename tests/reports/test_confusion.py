import json

import pandas
import pytest

from reports import confusion
from reports.confusion import Asked

BOX = [0, 0, 9, 9, 0.95]


def asked(include, found, *, group="two_object", value=0.0, reason="", colors=(), sample_id="s"):
    """A scored picture; `found`: class -> how many, or its rows."""
    detections = {n: [BOX] * k if isinstance(k, int) else k for n, k in found.items()}
    details = {"detections": detections, "colors": list(colors)}
    return Asked(sample_id, group, value, reason, details, {"include": include})


def clause(name, count=1, **more):
    return {"class": name, "count": count, **more}


def cells(matrix):
    return {(r["asked"], r["found"]): r["count"] for r in matrix.records()}


def test_a_missing_class_is_set_against_what_stood_there():
    dog_and_cup = [clause("dog"), clause("cup")]
    pictures = [
        asked(dog_and_cup, {"dog": 1, "cup": 1}, value=1.0),
        asked(dog_and_cup, {"dog": 1, "bowl": [[0, 0, 1, 1, 0.5]], "vase": [[0, 0, 1, 1, 0.9]]}),
        asked(dog_and_cup, {"dog": 2}),
        asked(dog_and_cup, {}),
    ]
    pairs = [(name, found) for _, name, found in confusion.class_pairs(pictures)]
    assert pairs == [
        ("dog", "dog"), ("cup", "cup"),
        ("dog", "dog"), ("cup", "vase"),  # the surest of the classes that nobody asked for
        ("dog", "dog"), ("cup", confusion.COPY),
        ("dog", confusion.NOTHING), ("cup", confusion.NOTHING),
    ]  # fmt: skip
    matrix = confusion.class_matrix(pictures)
    assert cells(matrix)["cup", confusion.AS_ASKED] == 1 and cells(matrix)["cup", "vase"] == 1
    assert matrix.totals == [4, 4] and matrix.n_right == 4
    cup, dog = confusion.class_table(pictures)
    assert (cup.name, cup.found, cup.estimate.n, cup.estimate.value) == ("cup", 1, 4, 0.25)
    assert dict(cup.instead) == {"vase": 1, confusion.COPY: 1, confusion.NOTHING: 1}
    assert dog.estimate.lo <= 0.75 <= dog.estimate.hi


def test_rare_stand_ins_share_a_column_and_rows_keep_their_sum():
    names = [f"class {i}" for i in range(20)]
    pictures = [asked([clause("cup")], {name: 1}) for name in names]
    matrix = confusion.class_matrix(pictures)
    assert len(matrix.columns) == confusion.MAX_CLASS_COLUMNS + 4
    assert matrix.totals == [20]
    assert cells(matrix)["cup", confusion.OTHER] == 20 - confusion.MAX_CLASS_COLUMNS


def test_counts_beyond_the_last_column_are_kept():
    pictures = [
        asked([clause("cup", 3)], {"cup": n}, group="counting") for n in (0, 3, 3, 12)
    ] + [asked([clause("cup")], {"cup": 9})]  # another group does not count
    matrix = confusion.count_matrix(pictures)
    assert matrix.columns[-1] == "8+"
    assert cells(matrix) == {("3", "0"): 1, ("3", "3"): 2, ("3", "8+"): 1}
    assert matrix.n_right == 2


def test_colours_by_judge_and_by_pixels_with_missing_objects():
    entry = {"class": "cup", "asked": "red", "color": "pink", "pixel_color": "red"}
    red_cup = [clause("cup", color="red")]
    pictures = [asked(red_cup, {"cup": 1}, colors=[entry]), asked(red_cup, {})]
    assert cells(confusion.color_matrix(pictures, "color")) == {
        ("red", "pink"): 1,
        ("red", confusion.NO_OBJECT): 1,
    }
    by_pixels = confusion.color_matrix(pictures, "pixel_color")
    assert cells(by_pixels)["red", "red"] == 1 and by_pixels.n_right == 1
    assert confusion.color_matrix([asked(red_cup, {})], "color") is None


@pytest.mark.parametrize(
    ("value", "reason", "found"),
    [
        (1.0, "", "left of"),
        (0.0, "expected dog left of target, found right of and above target", "right of"),
        (0.0, "expected dog left of target, found  target", confusion.NO_RELATION),
        (0.0, "expected cup>=1, found 0\nno target for dog to be left of", confusion.NO_OBJECT),
    ],
)
def test_relations_are_those_of_the_reason(value, reason, found):
    include = [clause("cup"), clause("dog", position=["left of", 0])]
    matrix = confusion.relation_matrix([asked(include, {}, value=value, reason=reason)])
    assert cells(matrix) == {("left of", found): 1}


def test_the_reasons_read_here_are_those_that_the_rules_write():
    from tasks.generation import geneval_rules as rules

    include = [clause("cup"), clause("dog", position=["left of", 0])]
    spec = {"tag": "position", "include": include}
    for dog, expected in (([60, 0, 70, 10], "right of"), ([0, 1, 10, 11], confusion.NO_RELATION)):
        import numpy as np

        cup = [0, 0, 10, 10]
        found = [
            (name, rules.Found(np.array([*box, 0.99], dtype=np.float32)))
            for name, box in (("cup", cup), ("dog", dog))
        ]
        verdict = rules.judge(found, spec)
        assert not verdict.correct
        picture = asked(include, verdict.details(), reason=verdict.reason)
        assert cells(confusion.relation_matrix([picture])) == {("left of", expected): 1}


def answers(rows):
    frame = pandas.DataFrame(rows, columns=["value", "answer", "details"], dtype=object)
    return confusion.answer_matrix(frame)


def test_expected_answers_follow_from_yes_and_no_or_are_told():
    rows = [(1.0, "yes", {}), (0.0, "yes", {}), (0.0, "no", {}), (0.0, None, {}), (None, "no", {})]
    assert cells(answers(rows)) == {("yes", "yes"): 1, ("no", "yes"): 1, ("yes", "no"): 1}
    rows = [(0.0, "B", {"expected": "A"}), (0.0, None, {"expected": "A"})]
    assert cells(answers(rows)) == {("A", "B"): 1, ("A", "not readable"): 1}
    assert answers([(0.0, "B", {}), (1.0, "A", {})]) is None


def test_records_are_read_beside_the_pictures_and_damaged_ones_are_unknown(tmp_path):
    frame = {"sample_id": [], "group": [], "value": [], "reason": [], "details": [], "path": []}
    contents = {
        "00000": json.dumps({"tag": "single_object", "include": [clause("cup")]}),
        "00001": "{torn",
        "00002": json.dumps({"include": [{"class": 3}]}),
        "00003": None,
    }
    for name, text in contents.items():
        (tmp_path / "images" / name / "samples").mkdir(parents=True)
        if text is not None:
            (tmp_path / "images" / name / "metadata.jsonl").write_text(text + "\n")
        path = f"images/{name}/samples/00000.png"
        for key, value in zip(frame, (name, "g", 0.0, "", {"detections": {}}, path), strict=True):
            frame[key].append(value)
    pictures = confusion.asked_pictures(tmp_path, pandas.DataFrame(frame, dtype=object))
    assert [p.record is not None for p in pictures] == [True, False, False, False]
    assert confusion.class_matrix(pictures).totals == [1]
