"""Any task of lmms-eval 0.7 as `lmms:NAME`: its documents, prompts, scorer and aggregations on our run-time.

Measures, data and licence are the task's own. `lmms:NAME:key=value` sets: `form` (simple or chat prompts),
`num_fewshot`, `repeats`, `model_name` (whose block of prompts is taken), `include` (a folder with further YAML files),
`submissions` (where files for a benchmark's server go).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from evals.api import Metric, Sample, Score, ScoreItem, ScoreRow, TaskKind
from evals.errors import UsageError, shown, suggest
from evals.lmms import package

if TYPE_CHECKING:
    from evals.lmms.documents import Documents

_KEYS = ("form", "num_fewshot", "repeats", "model_name", "include", "submissions")


def create(spec: str = "", data: str | Path | None = None) -> LmmsTask:
    """Factory for `--task lmms:NAME[:key=value]...`. Raises UsageError, MissingRequirementError."""
    name, *settings = spec.split(":")
    if not name:
        raise UsageError("task 'lmms' needs the name of one of lmms-eval's tasks: lmms:NAME (`blip3o-eval lmms list`)")
    found: dict[str, str] = {}
    for part in settings:
        key, equals, value = part.partition("=")
        if key not in _KEYS or not equals or not value:
            raise UsageError(f"{shown(part)} in task 'lmms:{name}': give key=value.{suggest(key, _KEYS)}")
        found[key] = value
    return LmmsTask(name, found, data)


def _whole_number(settings: Mapping[str, str], key: str) -> int | None:
    text = settings.get(key)
    if text is not None and not text.isdecimal():
        raise UsageError(f"{key}={shown(text)}: give a whole number")
    return None if text is None else int(text)


class LmmsTask:
    """One task, group or tag of lmms-eval; of several tasks each is a reporting group."""

    kind: TaskKind = "understanding"
    num_images = 1
    judges: Mapping[str, str] = {}

    def __init__(self, name: str, settings: Mapping[str, str] | None = None, data: str | Path | None = None) -> None:
        from evals.lmms.loading import Form

        self.short_name, self.settings = name, dict(settings or {})
        named = [f"{k}={v}" for k, v in sorted(self.settings.items()) if k != "submissions"]
        self.name = ":".join(["lmms", name, *named])
        self._data = data
        self._form = self.settings.get("form", "simple")
        if self._form not in get_args(Form):
            raise UsageError(f"form={shown(self._form)}: simple or chat")
        self._shots = _whole_number(self.settings, "num_fewshot")
        self._repeats = _whole_number(self.settings, "repeats")
        self.version = f"lmms-eval {package.check_installed(f'task {self.name!r}')}"

    @cached_property
    def documents(self) -> Documents:
        """Loaded on first use: this is where lmms-eval is imported."""
        from evals.lmms.documents import Documents
        from evals.lmms.loading import load

        place = Path(self._data) if self._data is not None else _shared_folder()
        loaded = load(
            self.short_name,
            place,
            self._form,  # type: ignore[arg-type]
            self.settings.get("model_name", "blip3o"),
            self.settings.get("include"),
            is_shared=self._data is None,
        )
        for task in loaded.tasks.values():
            for key, value in (("num_fewshot", self._shots), ("repeats", self._repeats)):
                if value is not None:
                    task.set_config(key=key, value=value)
        return Documents(loaded, self._form)  # type: ignore[arg-type]

    @property
    def groups(self) -> tuple[str, ...]:
        return tuple(self.documents.loaded.tasks)

    @property
    def card(self) -> Mapping[str, str]:
        tasks = self.documents.loaded.tasks
        data = {str(t.config.dataset_path) for t in tasks.values()}
        return {
            "measures": f"what lmms-eval's {self.short_name} measures ({len(tasks)} task{'s' * (len(tasks) != 1)})",
            "paper": "see the task's folder in lmms-eval",
            "data": ", ".join(sorted(data)[:5]),
            "licence": "that of the benchmark",
            "scorer": f"{self.version}: its prompts, process_results and aggregations",
            "worth": "Figures named _lmms_eval are what lmms-eval prints for the same answers; the others leave "
            "failed answers out instead of scoring them as empty.",
        }

    def samples(self) -> Sequence[Sample]:
        return self.documents.samples

    def digest(self) -> str:
        """sha256 of prompts, settings and, where they are local, the files; else the cached data set's fingerprint."""
        from evals.io.digests import file_digest

        documents = self.documents
        digest = hashlib.sha256(self.name.encode())
        for task, one in documents.loaded.tasks.items():
            files = [file_digest(path) for path in documents.loaded.files.get(task, ())]
            prints = [] if files else [getattr(one.eval_docs, "_fingerprint", "")]
            digest.update(json.dumps([task, str(one.VERSION), files, prints]).encode())
        for sample in self.samples():
            asked: list[Any] = [sample.id, sample.prompt, [[c.prompt, c.text] for c in sample.choices]]
            asked += [sample.max_new_tokens, sample.stop, dict(sample.sampling)]
            digest.update(json.dumps(asked).encode())
        return digest.hexdigest()

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Any]:
        return [self._score(item) for item in items]

    def _score(self, item: ScoreItem) -> Score | Exception:
        from evals.lmms import codec, scoring

        place, text = item.sample.metadata, item.output.text or ""
        task, doc_id = place["task"], place["doc_id"]
        one = self.documents.loaded.tasks[task]
        try:
            found, is_drawn = scoring.payloads(self.documents, task, doc_id, [text] * self._asked(one))
            kept = {f: {m: codec.encode(v) for m, v in values.items()} for f, values in found.items()}
        except Exception as error:  # a scorer of one of hundreds of tasks; the others' documents go on
            return error
        value = self._number(one, found)
        details: dict[str, Any] = {"cluster": place["cluster"]}
        # Of repeated answers the figure needs all at once, so the text is kept, not what the scorer made of one.
        if self._asked(one) > 1 or is_drawn:
            details["text"] = text
        if self._asked(one) == 1:
            details["lmms"] = kept
        if is_drawn:
            details["drawn"] = True
        reason = "" if value is not None else "lmms-eval scores this task over all documents only"
        return Score(value if value is not None else 0.0, answer=text[:200], reason=reason, details=details)

    @staticmethod
    def _asked(one: Any) -> int:
        return int(one.config.repeats or 1)

    def _number(self, one: Any, found: Mapping[str, Mapping[str, Any]]) -> float | None:
        """The document's own number: in the first metric that has one, else the aggregation of it alone."""
        from evals.lmms import codec

        key = str(one.config.score_key or "score")
        values = next(iter(found.values()), {})
        for metric, payload in values.items():
            if metric in one.aggregation() and (number := codec.number(payload, key)) is not None:
                return number
        return None

    def metrics(self) -> Sequence[Metric]:
        """Our figures, the groups' first; then lmms-eval's own."""
        from evals.lmms.figures import Figure
        from evals.lmms.groups import group_figures

        figures = [
            Figure(
                self._figure_name(task, metric, ensemble.name),
                self.documents,
                task,
                metric,
                ensemble.name,
                bool(one.higher_is_better().get(metric, True)),
            )
            for task, one in self.documents.loaded.tasks.items()
            for ensemble in one._filters
            for metric in one.aggregation()
        ]
        ours: list[Metric] = [*group_figures(self.documents, figures), *figures]
        return [*ours, *(self._theirs(figure) for figure in ours)]

    def _figure_name(self, task: str, metric: str, filter_: str) -> str:
        name = metric if filter_ == "none" else f"{metric},{filter_}"
        return f"{task}/{name}" if len(self.documents.loaded.tasks) > 1 else name

    def _theirs(self, figure: Any) -> Metric:
        from dataclasses import replace

        name = f"{figure.name}_lmms_eval"
        if hasattr(figure, "parts"):
            parts = [replace(part, is_theirs=True) for part in figure.parts]
            return replace(figure, name=name, parts=parts)
        place = self.settings.get("submissions")
        return replace(figure, name=name, is_theirs=True, submissions=Path(place) if place else None)

    def warnings(self, rows: Sequence[ScoreRow]) -> Sequence[str]:
        found = []
        drawn = next((s.sampling for s in self.samples() if s.sampling), None)
        if drawn:
            settings = ", ".join(f"{key} {value}" for key, value in drawn.items())
            found.append(
                f"the task wants its answers drawn ({settings}); a model that only decodes greedily answered greedily"
            )
        guessed = sum(bool(row.score.details.get("drawn")) for row in rows)
        if guessed:
            found.append(f"lmms-eval's scorer drew at random for {guessed} answers that it could not read")
        return found


def _shared_folder() -> Path | None:
    """`$BLIP3O_EVAL_DATA/lmms`, or that folder itself."""
    root = os.environ.get("BLIP3O_EVAL_DATA")
    if not root:
        return None
    own = Path(root).expanduser() / "lmms"
    return own if own.is_dir() else Path(root).expanduser()
