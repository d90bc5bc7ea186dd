"""From a definition to its points: every combination of axes, zipped groups, further points and seeds, each with a
readable id that depends on its own values alone.

    axes {train.target: [clip, vae]}, seeds [0, 1]  ->  target=clip,seed=0  target=clip,seed=1  target=vae,seed=0  ...

Pure: nothing is looked up, planned or written here.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.config import flatten
from evals.errors import shown
from evals.sweeps.axes import without_wrong_keys
from evals.sweeps.folder import digest_of
from evals.sweeps.naming import id_of, labels_of
from evals.sweeps.schema import SweepConfig, run_layer
from evals.sweeps.selection import distinct, matching, selection_problems
from evals.sweeps.source import Source, together

MAX_POINTS = 10_000


@dataclass(frozen=True)
class GridPoint:
    """A combination of the axes with a seed. ``values``: label -> value, in the order of the axes."""

    id: str
    cell: str
    values: Mapping[str, Any]
    seed: int
    train: Mapping[str, Any] | None
    run: Mapping[str, Any]
    place: str


@dataclass(frozen=True)
class _Combination:
    """``values``: label -> value of every axis; ``given``: labels that the file names for it."""

    values: Mapping[str, Any]
    given: frozenset[str]
    place: str


@dataclass(frozen=True)
class Grid:
    """``axes``: label -> its values, in order. ``keys``: label -> dotted key."""

    points: tuple[GridPoint, ...]
    axes: Mapping[str, tuple[Any, ...]]
    keys: Mapping[str, str]
    baseline: str

    @property
    def cells(self) -> dict[str, list[GridPoint]]:
        found: dict[str, list[GridPoint]] = {}
        for point in self.points:
            found.setdefault(point.cell, []).append(point)
        return found


def expand(config: SweepConfig, source: Source, problems: list[str]) -> Grid:
    """All points, in the order of the file, seeds last.

    Adds to ``problems`` every key that is not under ``train`` or ``run``, every selection that fits nothing, and every
    combination that stands twice; the grid is then what is left without them.
    Raises: ConfigError for grids that are empty or have more than 10,000 points.
    """
    config = without_wrong_keys(config, source, problems)
    labels = labels_of(_keys(config, source))
    by_label = {label: key for key, label in labels.items()}
    combinations = list(_combinations(config, source, labels))
    baseline = _baseline(config, source, combinations, labels, problems)
    combinations = _without_excluded(config, source, combinations, labels, problems)
    if not combinations:
        raise together(
            source.name, [*problems, f"{source.place('exclude')}: exclude leaves no point: the grid is empty"]
        )
    number = len(combinations) * len(config.seeds)
    if number > MAX_POINTS:
        raise together(
            source.name, [*problems, f"{source.name}: {number} points are more than {MAX_POINTS}: cut axes or seeds"]
        )
    if not by_label and len(config.seeds) < 2 and not problems:
        problems.append(f"{source.name}: nothing varies: give axes, zip, points, or several seeds")
    points = [
        _point(config, combination, seed, by_label)
        for combination in combinations
        for seed in config.seeds
    ]
    points = _without_doubles(points, problems)
    axes = {label: tuple(distinct(c.values[label] for c in combinations)) for label in by_label}
    return Grid(tuple(points), axes, by_label, baseline or points[0].cell)


def _keys(config: SweepConfig, source: Source) -> list[str]:
    zipped = [key for group in config.zip for key in group]
    further = [key for point in config.points for key in point]
    both = [*zipped, *config.axes] if _is_zip_first(source) else [*config.axes, *zipped]
    return list(dict.fromkeys([*both, *further]))


def _is_zip_first(source: Source) -> bool:
    """Ids name axes in the order of the file."""
    lines = source.lines
    return ("zip",) in lines and lines["zip",] < lines.get(("axes",), 0)


def _combinations(
    config: SweepConfig, source: Source, labels: Mapping[str, str]
) -> Iterator[_Combination]:
    """Keys that a combination does not name keep the base's value."""
    own = {labels[key]: _base_value(config, key) for key in labels}
    factors: list[list[dict[str, Any]]] = [
        [{labels[key]: value} for value in values] for key, values in config.axes.items()
    ]
    zipped = []
    for group in config.zip:
        rows = zip(*group.values(), strict=True)
        zipped.append([{labels[k]: v for k, v in zip(group, row, strict=True)} for row in rows])
    factors = [*zipped, *factors] if _is_zip_first(source) else [*factors, *zipped]

    def combination(given: Mapping[str, Any], place: str) -> _Combination:
        return _Combination({**own, **given}, frozenset(given), place)

    if factors:
        place = source.place("axes" if config.axes else "zip")
        for chosen in itertools.product(*factors):
            yield combination({k: v for part in chosen for k, v in part.items()}, place)
    for i, point in enumerate(config.points):
        yield combination({labels[k]: v for k, v in point.items()}, source.place("points", i))
    if not factors and not config.points:
        yield combination({}, source.name)


def _base_value(config: SweepConfig, key: str) -> Any:
    """What the base says about a key; None where it says nothing."""
    root, _, rest = key.partition(".")
    value: Any = config.base.train if root == "train" else run_layer(config.base.run)
    for part in rest.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _without_excluded(
    config: SweepConfig,
    source: Source,
    combinations: list[_Combination],
    labels: Mapping[str, str],
    problems: list[str],
) -> list[_Combination]:
    kept = combinations
    for i, selection in enumerate(config.exclude):
        place = f"{source.place('exclude', i)}: exclude"
        wrong = selection_problems(selection, [c.values for c in combinations], labels)
        if wrong:
            problems += [f"{place}: {problem}" for problem in wrong]
        elif not any(matching(selection, c.values, labels) for c in combinations):
            problems.append(f"{place}: {shown(selection)} fits no point")
        else:
            kept = [c for c in kept if not matching(selection, c.values, labels)]
    return kept


def _baseline(
    config: SweepConfig,
    source: Source,
    combinations: Sequence[_Combination],
    labels: Mapping[str, str],
    problems: list[str],
) -> str | None:
    """The cell of the file's baseline; None without one, or with a wrong one."""
    if config.baseline is None:
        return None
    place = f"{source.place('baseline')}: baseline"
    wrong = selection_problems(config.baseline, [c.values for c in combinations], labels)
    problems += [f"{place}: {problem}" for problem in wrong]
    if wrong:
        return None
    fitting = list(
        dict.fromkeys(id_of(c.values) for c in combinations if matching(config.baseline, c.values, labels))
    )
    if len(fitting) == 1:
        return fitting[0]
    what = f"fits {len(fitting)} points ({', '.join(fitting[:3])})" if fitting else "fits no point"
    problems.append(f"{place}: {shown(config.baseline)} {what}: name the value of every axis that varies")
    return None


def _point(
    config: SweepConfig, combination: _Combination, seed: int, by_label: Mapping[str, str]
) -> GridPoint:
    train = copy.deepcopy(config.base.train)
    run: dict[str, Any] = dict(flatten(run_layer(config.base.run)))
    for label in combination.given:
        value = combination.values[label]
        root, _, rest = by_label[label].partition(".")
        if root == "run":
            run.update(flatten(run_layer({rest: value})))
        elif train is not None:
            _set(train, rest, value)
    cell = id_of(combination.values)
    point_id = f"{cell},seed={seed}" if combination.values else f"seed={seed}"
    return GridPoint(
        point_id, cell, combination.values, seed, train, run_layer(run), combination.place
    )


def _set(settings: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        inner = settings.get(parent)
        settings[parent] = dict(inner) if isinstance(inner, Mapping) else {}
        settings = settings[parent]
    settings[last] = value


def _without_doubles(points: Sequence[GridPoint], problems: list[str]) -> list[GridPoint]:
    """Points with equal settings, and different ones whose ids would be one folder, are told and taken out."""
    kept = []
    by_settings: dict[str, GridPoint] = {}
    by_id: dict[str, GridPoint] = {}
    for point in points:
        first = by_settings.setdefault(digest_of([point.train, point.run, point.seed]), point)
        other = by_id.setdefault(point.id.lower(), point)
        if first is not point:
            same = "" if first.id == point.id else f", as {first.id}"
            problems.append(f"{point.place}: point {point.id} stands twice{same}: take one out")
        elif other is not point:
            problems.append(
                f"{point.place}: two points would share the folder {point.id}: {shown(dict(point.values))} and "
                f"{shown(dict(other.values))}"
            )
        else:
            kept.append(point)
    return kept
