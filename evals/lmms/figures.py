"""lmms-eval's aggregations as metrics: its figure exactly, and ours with an interval.

Ours leaves out documents whose answer failed and counts them; lmms-eval has no such state, so in its figure a failed
answer is an empty one. Where every answer is there the two are equal.

An interval is that of a mean wherever the aggregation is one (tried on parts of the documents, as many aggregations
are means written out); else the documents are resampled (bootstrap over pictures or videos that several share); an
aggregation that refuses repeated documents, as MME's pairs do, gets a jackknife over them.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import math
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from evals.api import MetricValue, ScoreRow, Terms
from evals.lmms import codec, package, scoring
from evals.lmms.documents import Documents
from evals.phases.calls import one_line

SECONDS = 20.0  # that the resamples of one figure may take
_RESAMPLES, _FEWEST, _JACKKNIFE_GROUPS = 1000, 100, 100
_PARTS = 5  # random parts on which an aggregation has to be a mean

Aggregate = Callable[[Sequence[Any]], Any]


@dataclass(frozen=True)
class Figure:
    """One (metric, filter) of a task. ``is_theirs``: lmms-eval's own figure, without an interval."""

    name: str
    documents: Documents = field(repr=False)
    task: str
    metric: str
    filter: str
    higher_is_better: bool = True
    is_theirs: bool = False
    submissions: Path | None = None
    unit: str = "score"

    def compute(self, rows: Sequence[ScoreRow]) -> MetricValue:
        mine = [row for row in rows if row.group == self.task]
        unscored = sum(not row.score.is_scored for row in mine)
        try:
            found = self._payloads(mine)
            value = self._value(found) if found else None
        except Exception as error:  # whatever a task's scorer or aggregation raises
            return self._without(len(mine) - unscored, unscored, f"lmms-eval's aggregation failed: {one_line(error)}")
        if not found:
            return self._without(0, unscored, "nothing was scored")
        if isinstance(value, str) or value is None:
            return self._without(len(found), unscored, str(value or "lmms-eval gives no number here"))
        made = MetricValue(
            self.name, value, len(found), unscored, None, self.unit, self.higher_is_better,
            clusters=len({cluster for cluster, _ in found}),
        )  # fmt: skip
        if self.is_theirs:
            note = f"{unscored} failed answers count as empty ones" if unscored else None
            return replace(made, method="lmms-eval", unscored=0, note=note)
        return self._with_interval(made, found)

    def terms(self, rows: Sequence[ScoreRow]) -> Terms | None:
        """The documents' numbers, where the aggregation is their mean."""
        if self.is_theirs:
            return None
        mine = [r for r in rows if r.group == self.task and r.score.is_scored]
        found = self._payloads(mine)
        scale = self._scale(found) if found else None
        if scale is None:
            return None
        numbers = self._numbers(found)
        keys: tuple[Hashable, ...] = tuple((self.task, n) for n in range(len(found)))
        if len(mine) == len(found):
            keys = tuple((row.sample_id, row.index) for row in mine)
        return Terms(
            keys=keys,
            values=tuple(numbers),
            clusters=tuple(cluster for cluster, _ in found),
            scale=scale,
            is_bounded=all(0 <= n <= 1 for n in numbers),
        )

    # -- payloads -----------------------------------------------------------------------------

    def _payloads(self, rows: Sequence[ScoreRow]) -> list[tuple[str, Any]]:
        """(cluster, payload) per document, in document order."""
        documents: dict[int, list[ScoreRow]] = {}
        for row in rows:
            name = row.sample_id.rpartition("/")[2].partition("#")[0]
            documents.setdefault(int(name), []).append(row)
        is_drawn = any(row.score.details.get("drawn") for row in rows)
        found = []
        with scoring.seeded_as_theirs() if self.is_theirs else contextlib.nullcontext():
            for number in sorted(documents):
                payload = self._payload(number, documents[number], is_drawn)
                if payload is not None and self.metric in payload:
                    cluster = self.documents.cluster(self.task, number) or f"document {number}"
                    found.append((cluster, payload[self.metric]))
        return found

    def _payload(
        self, number: int, rows: Sequence[ScoreRow], is_drawn: bool
    ) -> Mapping[str, Any] | None:
        """What the scorer made of one document's answers; None for one that does not count."""
        scores = [row.score for row in rows]
        if not self.is_theirs and not all(score.is_scored for score in scores):
            return None
        kept = scores[0].details.get("lmms")
        if kept is not None and not (self.is_theirs and is_drawn):
            return {name: codec.decode(value) for name, value in kept.get(self.filter, {}).items()}
        texts = [score.details.get("text") or score.answer or "" for score in scores]
        if self.is_theirs:
            return scoring.in_sequence(self.documents, self.task, number, texts)[self.filter]
        return scoring.payloads(self.documents, self.task, number, texts)[0][self.filter]

    @property
    def _one(self) -> Any:
        return self.documents.loaded.tasks[self.task]

    # -- values -------------------------------------------------------------------------------

    def _value(self, found: Sequence[tuple[str, Any]]) -> float | str | None:
        """The figure; a text says why there is none."""
        with tempfile.TemporaryDirectory() as scratch:
            place = self.submissions if self.is_theirs and self.submissions else Path(scratch)
            value = self._aggregate(place)([payload for _, payload in found])
            if isinstance(value, (int, float)) and math.isfinite(value):
                return float(value)
            if any(Path(scratch).rglob("*")) or (value is None and place == self.submissions):
                where = f"below {place}" if place == self.submissions else "with submissions=DIR"
                return f"no figure: lmms-eval writes a file for the benchmark's server ({where})"
        return f"no number: lmms-eval gives {type(value).__name__} {str(value)[:80]!r}"

    def _aggregate(self, place: Path) -> Aggregate:
        function = self._one.aggregation()[self.metric]
        takes_args = "args" in inspect.signature(function).parameters
        place.mkdir(parents=True, exist_ok=True)
        arguments = argparse.Namespace(
            output_path=str(place), model="blip3o", model_args="", tasks=self.task, limit=None, log_samples=False
        )

        def call(items: Sequence[Any]) -> Any:
            # Some write a file for a server into the current folder, each time they are called.
            with package.quietly(), contextlib.chdir(place):
                value = function(list(items), args=arguments) if takes_args else function(list(items))
            return value.item() if hasattr(value, "item") and getattr(value, "size", 0) == 1 else value

        return call

    def _numbers(self, found: Sequence[tuple[str, Any]]) -> list[float]:
        key = str(self._one.config.score_key or "score")
        return [n for _, payload in found if (n := codec.number(payload, key)) is not None]

    def _scale(self, found: Sequence[tuple[str, Any]]) -> float | None:
        """The factor by which the aggregation is the mean of the documents' numbers; None if it is no mean."""
        import random

        numbers = self._numbers(found)
        if len(numbers) != len(found):
            return None
        parts = [list(range(len(found)))]
        draw = random.Random(0)
        parts += [draw.sample(parts[0], max(1, len(found) // 2)) for _ in range(_PARTS)]
        scale: float | None = None
        with tempfile.TemporaryDirectory() as scratch:
            call = self._aggregate(Path(scratch))
            for part in parts:
                mean = math.fsum(numbers[i] for i in part) / len(part)
                try:
                    value = call([found[i][1] for i in part])
                except Exception:
                    return None
                if not isinstance(value, (int, float)):
                    return None
                if mean == 0:
                    if value != 0:
                        return None
                elif scale is None:
                    scale = 100.0 if math.isclose(value / mean, 100.0) else 1.0
                if scale is not None and not math.isclose(value, scale * mean, rel_tol=1e-9, abs_tol=1e-12):
                    return None
        return scale if scale is not None else 1.0

    # -- intervals ----------------------------------------------------------------------------

    def _with_interval(self, made: MetricValue, found: Sequence[tuple[str, Any]]) -> MetricValue:
        from evals import stats

        scale = self._scale(found)
        if scale is not None:
            numbers = self._numbers(found)
            bounded = all(0 <= n <= 1 for n in numbers)
            estimate = stats.mean(numbers, [c for c, _ in found], bounded=bounded)
            ci = estimate.ci and (scale * estimate.ci[0], scale * estimate.ci[1])
            return replace(made, ci95=ci, method=estimate.method)
        with tempfile.TemporaryDirectory() as scratch:
            call = self._aggregate(Path(scratch))
            return _resampled(made, found, call)

    def _without(self, n: int, unscored: int, note: str) -> MetricValue:
        return MetricValue(
            self.name, None, n, unscored, None, self.unit, self.higher_is_better, note=note
        )


def _resampled(made: MetricValue, found: Sequence[tuple[str, Any]], call: Aggregate) -> MetricValue:
    """With the interval of a bootstrap over clusters, or a jackknife, or a note that says why there is none."""
    import random

    groups: dict[str, list[Any]] = {}
    for cluster, payload in found:
        groups.setdefault(cluster, []).append(payload)
    parts = list(groups.values())
    if len(parts) < 10:
        return replace(made, note=f"no interval: {len(parts)} independent documents are too few")
    began = time.monotonic()
    call([payload for part in parts for payload in part])
    seconds = max(time.monotonic() - began, 1e-6)
    count = min(_RESAMPLES, int(SECONDS / seconds))
    if count < _FEWEST:
        return replace(made, note=f"no interval: the aggregation takes {seconds:.1f} s, too long to repeat")
    draw = random.Random(0)
    values: list[float] = []
    try:
        for _ in range(count):
            # One fewer than there are, which makes the variance unbiased (Rao and Wu 1988).
            chosen = draw.choices(parts, k=len(parts) - 1)
            values.append(float(call([payload for part in chosen for payload in part])))
    except Exception as error:
        return _jackknifed(made, parts, call, one_line(error, 80))
    values = sorted(v for v in values if math.isfinite(v))
    if len(values) < count:
        return replace(made, note="no interval: the aggregation gives no number on resampled documents")
    if values[0] == values[-1]:
        return replace(made, note="no interval: all resampled documents give the same number")
    import numpy as np

    from evals.stats.clusters import expanded_percentiles

    ci = expanded_percentiles(np.asarray(values), 0.95, len(parts) - 1)
    return replace(made, ci95=ci, method="bootstrap of documents")


def _jackknifed(
    made: MetricValue, parts: Sequence[Sequence[Any]], call: Aggregate, why: str
) -> MetricValue:
    """Leaves out one group of clusters after the other; for aggregations that refuse repeated documents."""
    from evals.stats.clusters import t_quantile

    count = min(len(parts), _JACKKNIFE_GROUPS)
    values = []
    try:
        for left in range(count):
            rest = [p for k, p in enumerate(parts) if k % count != left]
            values.append(float(call([payload for part in rest for payload in part])))
    except Exception:
        return replace(made, note=f"no interval: the aggregation refuses resampled documents ({why})")
    mean = math.fsum(values) / count
    error = math.sqrt((count - 1) / count * math.fsum((v - mean) ** 2 for v in values))
    half = t_quantile(0.95, count - 1) * error
    assert made.value is not None
    return replace(made, ci95=(made.value - half, made.value + half), method="jackknife over documents")
