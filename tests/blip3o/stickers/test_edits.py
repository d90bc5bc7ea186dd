"""Edit pairs: the target differs from the source by what the instruction says, and by nothing else."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from blip3o.errors import ConfigError
from blip3o.stickers import SceneConfig, render
from blip3o.stickers.edits import EDIT_KINDS, make_edit
from blip3o.stickers.make import picture_held_out


@pytest.mark.parametrize("level", ["easy", "full"])
@pytest.mark.parametrize("kind", EDIT_KINDS)
def test_target_differs_only_as_told(level, kind):
    config = SceneConfig.level(level)
    for i in range(120):
        edit = make_edit("test", i, config, (kind,))
        before, after = edit.source.stickers, edit.target.stickers
        assert edit.kind == kind and edit.source.background == edit.target.background
        if kind == "recolor":
            ((old, new),) = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
            assert old.placement == new.placement and old.class_name == new.class_name
            assert new.color in edit.instruction and old.class_name in edit.instruction
        elif kind == "remove":
            (gone,) = set(before) - set(after)
            assert (
                len(after) == 1 and set(after) < set(before) and gone.class_name in edit.instruction
            )
        elif kind == "add":
            (new,) = set(after) - set(before)
            assert (
                len(before) == 1 and set(before) < set(after) and new.class_name in edit.instruction
            )
        else:
            assert [(s.class_name, s.color) for s in before] == [
                (s.class_name, s.color) for s in after
            ]
            assert all(a.placement != b.placement for a, b in zip(before, after, strict=True))
            assert all(s.class_name in edit.instruction for s in before)
        assert not np.array_equal(render(edit.source).image, render(edit.target).image)


def test_moved_object_ends_where_it_was_told_to_go():
    config = SceneConfig.level("easy", size_px=64)
    places: Counter[str] = Counter()
    for i in range(200):
        edit = make_edit("val", i, config, ("move",))
        place = edit.instruction.rsplit(" ", 1)[-1]
        if place not in ("left", "right", "top", "bottom"):
            continue
        places[place] += 1
        x1, y1, x2, y2 = render(edit.target).boxes[0]
        x, y = (x1 + x2) / 2, (y1 + y2) / 2
        side = {"left": 32 - x, "right": x - 32, "top": 32 - y, "bottom": y - 32}
        assert side[place] == max(side.values()) > 8
    assert len(places) == 4


def test_training_edits_show_nothing_held_out_and_unseen_ones_do():
    config = SceneConfig.level("full")
    for i in range(200):
        edit = make_edit("train", i, config)
        assert not picture_held_out(edit.source.stickers) and not picture_held_out(
            edit.target.stickers
        )
    assert all(
        picture_held_out(make_edit("test_unseen", i, config).target.stickers) for i in range(40)
    )


def test_pairs_are_a_pure_function_and_kinds_are_even():
    config = SceneConfig.level("easy")
    pairs = [make_edit("train", i, config) for i in range(400)]
    assert pairs[:20] == [make_edit("train", i, config) for i in range(20)]
    counts = Counter(p.kind for p in pairs)
    assert all(counts[k] > 70 for k in EDIT_KINDS)


def test_unknown_kind_is_refused():
    with pytest.raises(ConfigError, match="recolor, remove, add, move"):
        make_edit("train", 0, SceneConfig(), ("blur",))
