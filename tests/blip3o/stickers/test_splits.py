"""What is held out, and how it is recognised in official metadata lines."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from blip3o.stickers import CLASSES, COLORS
from blip3o.stickers.splits import (
    HELD_OUT_FILE,
    held_out,
    held_out_lists,
    is_held_out,
    spec_key,
    write_held_out,
)


def _pair(first, second, relation=None):
    """GenEval's include list: the reference first, then the placed object."""
    placed = {"class": second, "count": 1, **({"position": [relation, 0]} if relation else {})}
    return {"include": [{"class": first, "count": 1}, placed]}


def test_committed_lists_are_what_the_function_makes(official, tmp_path):
    assert json.loads(HELD_OUT_FILE.read_text()) == held_out_lists(official)
    source = tmp_path / "metadata.jsonl"
    source.write_text("\n".join(json.dumps(line) for line in official))
    write_held_out(source, tmp_path / "out.json")
    assert (tmp_path / "out.json").read_bytes() == HELD_OUT_FILE.read_bytes()


def test_lists_are_a_tenth_and_balanced():
    lists = held_out()
    assert len(lists.class_colors) == 80 and len(lists.class_pairs) == 320
    assert Counter(c for c, _ in lists.class_colors) == dict.fromkeys(CLASSES, 1)
    assert Counter(k for _, k in lists.class_colors) == dict.fromkeys(COLORS, 8)
    assert Counter(c for pair in lists.class_pairs for c in pair) == dict.fromkeys(CLASSES, 8)


def test_exactly_half_of_the_two_object_tags_is_held_out(official):
    total = Counter(line["tag"] for line in official)
    unseen = Counter(line["tag"] for line in official if is_held_out(line))
    assert {t: unseen[t] for t in ("two_object", "position", "color_attr")} == {
        "two_object": 50,
        "position": 50,
        "color_attr": 50,
    }
    assert total["two_object"] == 99
    assert unseen["single_object"] == unseen["counting"] == 0 < unseen["colors"] < 20


def test_the_same_content_in_other_words_has_the_same_key():
    assert spec_key(_pair("cat", "dog")) == spec_key(_pair("dog", "cat"))
    assert spec_key(_pair("dog", "cat", "left of")) == spec_key(_pair("cat", "dog", "right of"))
    assert spec_key(_pair("dog", "cat", "left of")) != spec_key(_pair("dog", "cat", "right of"))
    assert spec_key(_pair("dog", "cat", "above")) == spec_key(_pair("cat", "dog", "below"))


def test_a_spec_that_implies_a_held_out_one_is_held_out(official):
    lines = [x for x in official if x["tag"] == "two_object" and is_held_out(x)]
    first, second = (e["class"] for e in lines[0]["include"])
    assert is_held_out(_pair(first, second, "left of"))
    assert is_held_out(
        {"include": [{"class": c, "count": 2, "color": None} for c in (first, second)]}
    )


@pytest.mark.parametrize(
    "spec",
    [{}, {"include": []}, {"include": [{"class": "unicorn", "count": 1}]}, _pair("unicorn", "cat", "near"),
     {"include": [{"class": "cat", "count": 1, "position": ["left of", 5]}]}],
)  # fmt: skip
def test_foreign_specs_are_simply_not_held_out(spec):
    assert not is_held_out(spec)
