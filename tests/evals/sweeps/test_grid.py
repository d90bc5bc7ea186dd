"""The grid: every combination once, readable ids that depend on a point's own values alone, and what is refused."""

from __future__ import annotations

import itertools
import re
from typing import Any

import pytest

pytest.importorskip("hypothesis")

from hypothesis import given
from hypothesis import strategies as st

from evals.errors import ConfigError
from evals.sweeps.grid import Grid, expand
from evals.sweeps.naming import id_of, labels_of
from evals.sweeps.selection import matching
from evals.sweeps.source import Source
from evals.sweeps.sweepfile import check_form

NAMES = st.text("abcdefgh", min_size=1, max_size=6).filter(lambda n: n != "seed")
VALUES = st.integers(-3, 3) | st.text("abc xyz/", min_size=1, max_size=4) | st.sampled_from([0.5, 1.5, True, None])
AXES = st.dictionaries(NAMES, st.lists(VALUES, min_size=1, max_size=3, unique_by=str), min_size=1, max_size=3)


def grid_of(problems: list[str] | None = None, **keys: Any) -> Grid:
    found: list[str] = []
    base = {"train": {"steps": 4, "kind": {"a": 1}}, "run": {"limit": 6}, "evaluate": {"tasks": ["geneval"]}}
    data = {"name": "trial", "base": base, **keys}
    grid = expand(check_form(data, Source("t")), Source("t"), found)
    if problems is None:
        assert found == []
    else:
        problems += found
    return grid


def problems_of(**keys: Any) -> list[str]:
    problems: list[str] = []
    grid_of(problems, **keys)
    return problems


def ids(**keys: Any) -> list[str]:
    return [point.id for point in grid_of(**keys).points]


@given(AXES, st.lists(st.integers(0, 5), min_size=1, max_size=3, unique=True))
def test_every_combination_stands_once_with_an_id_of_its_own(axes: dict[str, list[Any]], seeds: list[int]) -> None:
    try:
        grid = grid_of([], axes={f"train.{k}": v for k, v in axes.items()}, seeds=seeds)
    except ConfigError as error:  # one point and nothing that varies
        assert "nothing varies" in str(error)
        return
    wanted = set(itertools.product(*[list(map(repr, v)) for v in axes.values()], seeds))
    found = {(*map(repr, p.values.values()), p.seed) for p in grid.points}
    assert len({p.id for p in grid.points}) == len(grid.points)
    assert found <= wanted
    # Only values that become the same folder name ("a b" and "a/b") are told and taken out.
    if found < wanted:
        assert any(re.search(r"[ /]", v) for values in axes.values() for v in values if isinstance(v, str))
    for point in grid.points:
        assert re.fullmatch(r"[A-Za-z0-9._+,=~-]+", point.id) and len(point.id) < 200
        assert all(point.train[key] == value for key, value in point.values.items())
        assert point.id == f"{point.cell},seed={point.seed}"


@given(AXES, NAMES, VALUES)
def test_an_id_does_not_depend_on_what_else_is_in_the_grid(
    axes: dict[str, list[Any]], name: str, value: Any
) -> None:
    keys = {f"train.{k}": v for k, v in axes.items()}
    before = {p.id: p for p in grid_of([], axes=keys, seeds=[0, 1]).points}
    key = next(iter(keys))
    more = {**keys, key: [*keys[key], value]}
    after = {p.id for p in grid_of([], axes=more, seeds=[0, 1, 2]).points}
    assert set(before) <= after


@given(AXES, st.data())
def test_exclude_takes_out_what_fits_and_nothing_else(axes: dict[str, list[Any]], data: st.DataObject) -> None:
    keys = {f"train.{k}": v for k, v in axes.items()}
    every = grid_of([], axes=keys, seeds=[0, 1])
    chosen = data.draw(st.sampled_from(every.points))
    names = data.draw(st.lists(st.sampled_from(list(axes)), min_size=1, unique=True))
    selection = {name: chosen.values[name] for name in names}
    left = [p.id for p in every.points if not matching(selection, p.values, {})]
    if left:
        assert [p.id for p in grid_of([], axes=keys, seeds=[0, 1], exclude=[selection]).points] == left
    else:
        with pytest.raises(ConfigError, match="exclude leaves no point: the grid is empty"):
            grid_of([], axes=keys, seeds=[0, 1], exclude=[selection])


def test_ids_read_like_the_axes() -> None:
    assert ids(axes={"train.target": ["clip", "vae"], "run.generation.steps": [20]}, seeds=[0]) == [
        "target=clip,steps=20,seed=0", "target=vae,steps=20,seed=0",
    ]  # fmt: skip
    assert ids(axes={"train.x": [1, -1, 1e-5]}, seeds=[0]) == ["x=1,seed=0", "x=-1,seed=0", "x=1e-05,seed=0"]
    assert ids(seeds=[3, 4]) == ["seed=3", "seed=4"]
    assert id_of({"mix": {"a": 0.5, "b": 1}, "model": "/x/y z"}) == "mix=a-0.5-b-1,model=-x-y-z"
    assert id_of({"a": "x" * 300}) != id_of({"a": "x" * 299}) and len(id_of({"a": "x" * 300})) < 60


def test_labels_are_the_shortest_ends_that_tell_keys_apart() -> None:
    assert labels_of(["train.loss.weight", "train.kl.weight", "run.limit"]) == {
        "train.loss.weight": "loss.weight", "train.kl.weight": "kl.weight", "run.limit": "limit",
    }  # fmt: skip
    assert labels_of(["train.data.seed"]) == {"train.data.seed": "data.seed"}


def test_a_zipped_group_is_one_axis() -> None:
    found = ids(axes={"train.x": [1, 2]}, zip=[{"train.a": [5, 6], "train.kind.a": ["p", "q"]}], seeds=[0])
    assert found == [
        f"x={x},train.a={a},kind.a={b},seed=0" for x in (1, 2) for a, b in ((5, "p"), (6, "q"))
    ]


def test_further_points_keep_the_base_in_what_they_do_not_name() -> None:
    grid = grid_of(axes={"train.steps": [8]}, points=[{"train.kind.a": 7}], seeds=[0])
    assert [dict(p.values) for p in grid.points] == [{"steps": 8, "a": 1}, {"steps": 4, "a": 7}]
    assert [p.train["kind"]["a"] for p in grid.points] == [1, 7]


def test_a_value_of_null_takes_the_setting_back() -> None:
    base = {"train": None, "run": {"generation": {"steps": 5}}, "evaluate": {"tasks": ["geneval"]}}
    grid = grid_of(base=base, axes={"run.generation.steps": [None, 9]}, seeds=[0])
    assert [p.run["generation"]["steps"] for p in grid.points] == [None, 9]
    assert [p.cell for p in grid.points] == ["steps=null", "steps=9"]


def test_the_baseline_is_the_first_or_the_one_that_is_named() -> None:
    axes = {"train.x": [1, 2], "train.y": [3, 4]}
    assert grid_of(axes=axes).baseline == "x=1,y=3"
    assert grid_of(axes=axes, baseline={"x": 2, "train.y": 3}).baseline == "x=2,y=3"
    (problem,) = problems_of(axes=axes, baseline={"x": 2})
    assert "fits 2 points (x=2,y=3, x=2,y=4): name the value of every axis that varies" in problem


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"axes": {"train.x": [1, 1.0]}}, "point x=1.0,seed=42 stands twice, as x=1,seed=42: take one out"),
        ({"axes": {"train.x": [1, 2]}, "points": [{"train.x": 2}]}, "point x=2,seed=42 stands twice: take one out"),
        ({"axes": {"train.x": ["a b", "a/b"]}}, "two points would share the folder x=a-b,seed=42"),
        ({"axes": {"train.x": [1]}, "zip": [{"train.x": [1, 2]}]}, "axis 'train.x' varies twice, here and at t"),
        ({"axes": {"objective": [1, 2]}}, "Write train.objective for the training, run.objective for the evaluation"),
        ({"axes": {"steps": [1, 2]}}, "Did you mean: run.generation.steps, train.steps?"),
        ({"axes": {"run.generation.stepz": [1]}}, "unknown key 'generation.stepz'. Did you mean: generation.steps"),
        ({"axes": {"run.task": ["geneval"]}}, "cannot vary: tasks stand in base.evaluate.tasks"),
        ({"axes": {"run.seed": [1, 2]}}, "cannot vary: give seeds"),
        ({"axes": {"run.model": ["nano", "x"]}}, "cannot vary: the model is what each point trains"),
        ({"axes": {"train.x": [1, 2]}, "exclude": [{"y": 1}]}, "exclude: unknown axis 'y'"),
        ({"axes": {"train.x": ["clip"]}, "exclude": [{"x": "clap"}]}, "x is never 'clap'. Did you mean: clip?"),
        ({"axes": {"train.x": [1, 2]}, "exclude": [{}]}, "it names no key, so it would fit every point"),
        ({}, "nothing varies: give axes, zip, points, or several seeds"),
    ],
)  # fmt: skip
def test_what_is_refused(keys: dict[str, Any], wanted: str) -> None:
    problems = problems_of(**keys)
    assert any(wanted in problem for problem in problems), problems


def test_axes_of_training_need_training() -> None:
    base = {"train": None, "evaluate": {"tasks": ["geneval"]}}
    (problem, *_) = problems_of(base=base, axes={"train.x": [1, 2]})
    assert "base.train is null, points of this sweep do not train" in problem


def test_a_grid_without_end_is_refused_before_it_is_made() -> None:
    with pytest.raises(ConfigError, match="40000 points are more than 10000: cut axes or seeds"):
        grid_of(axes={"train.x": list(range(200)), "train.y": list(range(200))}, seeds=[0])
