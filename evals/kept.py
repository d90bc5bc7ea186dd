"""Was understanding kept? The same questions before and after generation training of one backbone, answer by answer.

The claim of arXiv:2505.09568 for sequential training: the backbone is frozen while the generator learns, so that it
understands as before; joint training has to show it. Two things are looked at for each task: how many answers are the
same word for word, and the paired difference of the headline figure. No difference shown is not the same as none, so
"kept" is said only where the whole interval lies above minus a margin (non-inferiority).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from evals import stats
from evals.api import MetricValue, PairedMetric, ScoreRow
from evals.comparison import Difference, Key, compare, metrics_of, read_scores
from evals.errors import UsageError
from evals.results import RunData, load

MARGIN = 0.02
ALPHA = 0.05
Verdict = Literal["identical", "kept", "lost", "gained", "undecided"]


@dataclass(frozen=True)
class KeptTask:
    """One task before and after.

    ``shared``: answers with a score in both runs; ``same``: of those, equal word for word (where likelihoods were
    compared: with the same likeliest answer); ``better`` and ``worse``: with a higher or lower score after.
    ``headline`` is the difference of the task's first figure, after minus before, its ``p_holm`` corrected for all
    tasks and runs of the comparison. ``margin`` is in the figure's unit, and ``scale`` is that figure's whole range.
    """

    task: str
    before: RunData
    after: RunData
    shared: int
    same: int
    better: int
    worse: int
    headline: Difference
    margin: float
    scale: float
    verdict: Verdict
    notes: tuple[str, ...]


@dataclass(frozen=True)
class After:
    """One model after training: its tasks, and those that only one side has."""

    name: str
    tasks: tuple[KeptTask, ...]
    left_out: tuple[str, ...]

    def count(self, verdict: Verdict) -> int:
        return sum(one.verdict == verdict for one in self.tasks)

    @property
    def sentence(self) -> str:
        """What it comes to."""
        if all(one.verdict == "identical" for one in self.tasks):
            answers = sum(one.shared for one in self.tasks)
            return f"{self.name}: understanding is unchanged, all {answers:,} answers are the same."
        parts = [
            f"{verdict} in {self.count(verdict)}" for verdict in get_args(Verdict) if self.count(verdict)
        ]  # fmt: skip
        of = f"of {len(self.tasks)} task{'s' if len(self.tasks) > 1 else ''}"
        return f"{self.name}: understanding is {', '.join(parts)} {of}."


@dataclass(frozen=True)
class Kept:
    """``margin`` is a share of each figure's whole range."""

    before: str
    after: tuple[After, ...]
    margin: float

    def to_json(self) -> dict[str, Any]:
        return {
            "before": self.before,
            "margin": self.margin,
            "after": [
                {
                    "name": one.name,
                    "sentence": one.sentence,
                    "left_out": list(one.left_out),
                    "tasks": [_task_json(task) for task in one.tasks],
                }
                for one in self.after
            ],
        }


def _task_json(one: KeptTask) -> dict[str, Any]:
    plain = ("task", "shared", "same", "better", "worse", "margin", "verdict")
    return {
        **{name: getattr(one, name) for name in plain},
        "notes": list(one.notes),
        "runs": {"before": str(one.before.root), "after": str(one.after.root)},
        "headline": asdict(one.headline),
    }


def kept(before: str | Path, after: Sequence[str | Path], margin: float = MARGIN) -> Kept:
    """Compare one model before with one or more after, task by task.

    Args: before, after: each a run folder, or a folder of the runs of several tasks (as ``run --task a,b --output``
    makes it). margin: the loss that still counts as kept, as a share of the figure's range.
    Raises: UsageError for folders without finished understanding runs, or without a common task; as ``compare``.
    """
    if not 0 < margin < 1:
        raise UsageError(f"a margin of {margin}: give a share between 0 and 1, such as {MARGIN}")
    first = runs_of(before)
    names = [Path(folder).resolve().name for folder in after]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in after]
    found = []
    for name, folder in zip(names, after, strict=True):
        other = runs_of(folder)
        shared = [task for task in first if task in other]
        if not shared:
            raise UsageError(
                f"{before} has runs of {', '.join(first)} and {folder} of {', '.join(other)}: run the same task on both"
            )
        left_out = tuple(sorted({*first, *other} - set(shared)))
        tasks = tuple(_task(first[task], other[task], margin) for task in shared)
        found.append(After(name, tasks, left_out))
    return Kept(Path(before).resolve().name, tuple(_decided(found)), margin)


def runs_of(folder: str | Path) -> dict[str, RunData]:
    """Task -> run, of a run folder or of the run folders in it. Raises: UsageError."""
    root = Path(folder)
    places = [root] if (root / "manifest.json").exists() else sorted(root.glob("*/manifest.json"))
    runs: dict[str, RunData] = {}
    for place in places:
        run = load(place if place == root else place.parent)
        task = run.manifest["task"]
        if task["kind"] != "understanding":
            continue
        if task["name"] in runs:
            raise UsageError(
                f"{root} holds two runs of task {task['name']!r} ({runs[task['name']].root} and {run.root}): give "
                "one of them"
            )
        runs[task["name"]] = run
    if not runs:
        raise UsageError(
            f"{root} holds no run of an understanding task: give the folder of "
            "`blip3o-eval run --task ... --output DIR`"
        )
    return runs


def _task(before: RunData, after: RunData, margin: float) -> KeptTask:
    (found,) = compare([before, after]).against
    first, other = read_scores(before), read_scores(after)
    shared = [key for key in first if key in other]
    said, later = _said(before, first), _said(after, other)
    same = sum(said[key] == later[key] for key in shared)
    changes = [(other[k].score.value or 0.0) - (first[k].score.value or 0.0) for k in shared]
    metric = metrics_of(before)[0][0]
    terms = metric.terms(list(first.values())) if isinstance(metric, PairedMetric) else None
    scale = 1.0 if terms is None else terms.scale
    return KeptTask(
        task=before.manifest["task"]["name"],
        before=before,
        after=after,
        shared=len(shared),
        same=same,
        better=sum(change > 0 for change in changes),
        worse=sum(change < 0 for change in changes),
        headline=found.rows[0],
        margin=margin * scale,
        scale=scale,
        verdict="undecided",
        notes=(*found.notes, *_remarks(before, after)),
    )


def _said(run: RunData, scores: Mapping[Key, ScoreRow]) -> dict[Key, Any]:
    """The text of each scored answer; where likelihoods were compared, the answer that was likeliest."""
    found: dict[Key, Any] = {}
    for row in run.outputs():
        key = (row["sample_id"], row["image_index"])
        if key in scores:
            text = row.get("text")
            found[key] = scores[key].score.answer if _is_likelihoods(text) else text
    return found


def _is_likelihoods(text: Any) -> bool:
    """Whether an output is what ``evals.phases.answers`` stores of choices: ``[[-1.5, false], ...]``."""
    if not isinstance(text, str) or not text.startswith("[["):
        return False
    try:
        rows = json.loads(text)
    except ValueError:
        return False
    return all(isinstance(row, list) and len(row) == 2 and isinstance(row[0], float) for row in rows)


def _remarks(before: RunData, after: RunData) -> list[str]:
    """What takes the meaning from "kept"."""
    remarks = []
    if before.manifest["model"]["weights_sha256"] == after.manifest["model"]["weights_sha256"]:
        remarks.append("both runs have the same weights: nothing was trained between them")
    metrics = {metric.name: metric for metric in before.metric_values()}
    chance, head = metrics.get("chance"), before.metric_values()[0]
    if chance is not None and chance.value is not None and _reaches(head, chance.value):
        remarks.append(
            f"before training the figure was not above chance ({chance.value:g}): there was nothing to keep"
        )
    return remarks


def _reaches(figure: MetricValue, value: float) -> bool:
    return figure.ci95 is not None and figure.ci95[0] <= value


def _decided(found: Sequence[After]) -> list[After]:
    """With p-values corrected for all headlines together, and the verdicts that follow."""
    tested = [one.headline.p_value for after in found for one in after.tasks]
    adjusted = iter(stats.holm([p for p in tested if p is not None]))
    decided = []
    for after in found:
        tasks = []
        for one in after.tasks:
            p_holm = None if one.headline.p_value is None else next(adjusted)
            with_p = replace(one, headline=replace(one.headline, p_holm=p_holm))
            tasks.append(replace(with_p, verdict=_verdict(with_p)))
        decided.append(replace(after, tasks=tuple(tasks)))
    return decided


def _verdict(one: KeptTask) -> Verdict:
    head = one.headline
    if one.same == one.shared:
        return "identical"
    if head.difference is None or head.ci95 is None:
        return "undecided"
    sign = 1 if head.higher_is_better else -1
    low, high = sorted(sign * bound for bound in head.ci95)
    is_shown = head.p_holm is not None and head.p_holm < ALPHA
    if is_shown and sign * head.difference < 0 and high < 0:
        return "lost"
    if is_shown and sign * head.difference > 0 and low > 0:
        return "gained"
    return "kept" if low > -one.margin else "undecided"


def legend(margin: float) -> Mapping[Verdict, str]:
    """What the verdicts mean."""
    share = f"{100 * margin:g} %"
    return {
        "identical": "every answer is the same",
        "kept": f"the whole 95 % interval of the difference lies above a loss of {share} of the figure's range",
        "lost": "the figure is lower, beyond chance after Holm's correction",
        "gained": "the figure is higher, beyond chance after Holm's correction",
        "undecided": f"neither: more questions are needed to tell a loss of {share} from none",
    }
