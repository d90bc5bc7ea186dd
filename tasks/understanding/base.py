"""What the question tasks share: documents in, prompts out, answers to scores and figures.

A task says how a document is read, what the prompt is, how an answer is judged, and, for
`--compat lmms-eval`, what lmms-eval 0.7.3 makes of the same answers. Two ways lead in: a run
(`samples`, `score`, `metrics`) and recorded answers (`score_recorded`).

By default an answer that cannot be parsed is wrong and counted as `unparsed`, nothing is drawn at
random, and an error is no answer at all: it has no score.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

from evals.api import Metric, Sample, Score, ScoreItem, ScoreRow, TaskKind
from evals.errors import InputError
from evals.recorded import Field, notes_on_repeats
from tasks.understanding.data import Place, Source, find_files
from tasks.understanding.table import Table

Doc = TypeVar("Doc")
Read = TypeVar("Read", contravariant=True)


class Compat(Protocol[Read]):
    """What another harness makes of recorded answers, one after another in file order."""

    def result(self, doc: Read, answer: str) -> Mapping[str, Any]:
        """Its verdict on one answer, stripped of outer white space."""

    def metrics(self) -> Mapping[str, float | None]:
        """Its figures over all answers so far; those without any answer are absent."""


class QuestionTask(ABC, Generic[Doc]):
    """A task whose samples are questions about pictures. `data`: where they lie, see `tasks.understanding.data`."""

    name: ClassVar[str]
    version: ClassVar[str] = "1"
    kind: ClassVar[TaskKind] = "understanding"
    groups: ClassVar[tuple[str, ...]] = ()
    num_images: ClassVar[int] = 1
    judges: ClassVar[Mapping[str, str]] = {}
    recorded_kinds: ClassVar[tuple[str, ...]] = ("answers",)
    compat_modes: ClassVar[tuple[str, ...]] = ("lmms-eval",)
    # Where answers end, as lmms-eval 0.7.3 has it; None: the model's own default.
    max_new_tokens: ClassVar[int | None] = None
    stop: ClassVar[tuple[str, ...]] = ()
    card: ClassVar[Mapping[str, str]]
    source: ClassVar[Source]
    # The task under whose name the documents lie, where several read the same ones; "": this one.
    data_of: ClassVar[str] = ""

    def __init__(self, data: str | Path | None = None) -> None:
        self._data = data

    # -- what a task defines ------------------------------------------------------------------

    @abstractmethod
    def read(self, record: Field) -> Doc:
        """A document from its columns, pictures left out. Raises InputError, naming the column."""

    @abstractmethod
    def prompt(self, doc: Doc) -> str:
        """The text that goes with the pictures; lmms-eval's, with its default settings."""

    @abstractmethod
    def identity(self, doc: Doc, number: int) -> tuple[str, str]:
        """A document's id, unique in the task, and its reporting group."""

    def picture_columns(self, doc: Doc) -> Sequence[str]:
        """The columns of its pictures in the order in which the model is given them."""
        return ("image",)

    def unit(self, doc: Doc) -> str | None:
        """What documents that count only together have in common; None if each counts alone."""
        return None

    @abstractmethod
    def judge(self, doc: Doc, answer: str) -> Score:
        """The verdict on an answer; details hold `unparsed` and what the metrics read."""

    @abstractmethod
    def metrics(self) -> Sequence[Metric]:
        """Figures in the order in which reports print them."""

    @abstractmethod
    def lmms_eval(self) -> Compat[Doc]:
        """A fresh scorer with the rules of lmms-eval 0.7.3."""

    # -- a run --------------------------------------------------------------------------------

    @cached_property
    def _place(self) -> Place:
        return find_files(self.data_of or self.name, self.source, self._data)

    @cached_property
    def _table(self) -> Table:
        return Table(self._place.files)

    def data_place(self) -> Place:
        """Where the documents lie. Raises: as `samples`."""
        return self._place

    def data_origin(self) -> Mapping[str, Any]:
        """Files, repository and revision of the documents, for the manifest."""
        return self._place.origin(self.source)

    def samples(self) -> Sequence[Sample]:
        """All documents in file order.

        Raises: MissingRequirementError if there is no data; InputError naming file, row and column.
        """
        table, samples = self._table, []
        seen: dict[str, int] = {}
        for number in range(len(table)):
            record = table.record(number)
            doc = self.read(Field(dict(record), table.where(number)))
            name, group = self.identity(doc, number)
            if name in seen:
                raise InputError(f"{table.where(number)}: id {name!r} is that of row {seen[name]}")
            seen[name] = number
            columns = self.picture_columns(doc)
            table.check_columns(number, columns)
            pictures: Any = table.pictures(number, columns)
            samples.append(
                Sample(
                    name,
                    number,
                    group,
                    self.prompt(doc),
                    record,
                    images=pictures,
                    unit=self.unit(doc),
                    max_new_tokens=self.max_new_tokens,
                    stop=self.stop,
                )
            )
        if not samples:
            raise InputError(f"{table.files[0]}: the file holds no rows")
        return samples

    def digest(self) -> str:
        return self._table.digest()

    def score(self, items: Sequence[ScoreItem], judge: Any | None) -> Sequence[Score]:
        return [
            self.judge(
                self.read(Field(dict(item.sample.metadata), item.sample.id)),
                (item.output.text or "").strip(),
            )
            for item in items
        ]

    # -- recorded answers ---------------------------------------------------------------------

    def score_recorded(
        self, kind: str, lines: Sequence[Field], compat: str | None = None
    ) -> Sequence[Mapping[str, Any]]:
        """One object per answer (`n`, `prompt`, `result`), then the figures under `aggregate`.

        A line holds `n`, `doc` (the row without its pictures) and `response`; null there, or a text
        under `error`, is a failed sample, which has no score. With `compat` a response is needed.
        """
        return self._compat_rows(lines) if compat else self._rows(lines)

    def notes_on_recorded(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """What a reader of the scored rows has to know."""
        return notes_on_repeats(rows[:-1], "n")

    def _compat_rows(self, lines: Sequence[Field]) -> list[Mapping[str, Any]]:
        scorer, rows = self.lmms_eval(), []
        for line in lines:
            n, doc = line["n"].integer(), self.read(line["doc"])
            answer = line["response"].text().strip()
            rows.append({"n": n, "prompt": self.prompt(doc), "result": scorer.result(doc, answer)})
        return [*rows, {"aggregate": {"metrics": scorer.metrics()}}]

    def _rows(self, lines: Sequence[Field]) -> list[Mapping[str, Any]]:
        from evals.results import metric_to_json

        rows, scores = [], []
        for number, line in enumerate(lines):
            n, doc = line["n"].integer(), self.read(line["doc"])
            name, group = self.identity(doc, number)
            score = self._score_of(doc, line)
            scores.append(ScoreRow(name, 0, group, score))
            rows.append({"n": n, "prompt": self.prompt(doc), "result": _score_json(score)})
        metrics = {m.name: metric_to_json(m.compute(scores)) for m in self.metrics()}
        return [*rows, {"aggregate": {"metrics": metrics}}]

    def _score_of(self, doc: Doc, line: Field) -> Score:
        error, response = line.get("error"), line.get("response")
        if error is not None and error.value is not None:
            return Score.unscored(f"output failed: {error.text()}", failed="output")
        if response is None or response.value is None:
            return Score.unscored("output failed: no response", failed="output")
        return self.judge(doc, response.text().strip())


def _score_json(score: Score) -> dict[str, Any]:
    row: dict[str, Any] = {"value": score.value, "answer": score.answer, **score.details}
    return row if score.is_scored else {**row, "unscored": score.unscored_reason}


def identifier(field: Field) -> str:
    """An id, which some copies of the data hold as a number."""
    return str(field.value) if type(field.value) is int else field.text()


def optional_identifier(record: Field, column: str) -> str | None:
    """An id that may be absent or empty. A list in its place could not be counted as one picture."""
    cell = record.get(column)
    return None if cell is None or cell.value is None else identifier(cell)


def optional_text(record: Field, column: str) -> str | None:
    """The text of a column that may be absent or empty."""
    cell = record.get(column)
    return None if cell is None or cell.value is None else cell.text()
