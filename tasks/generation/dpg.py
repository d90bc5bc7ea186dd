"""DPG-Bench: does the picture hold everything that a dense prompt describes?

Measures: faithfulness to long prompts. 1,065 prompts of 67 words on average, 4 pictures each; a judge
answers a graph of yes/no questions about every picture.
Paper: Hu et al., ELLA, arXiv:2403.05135; questions in the manner of DSG, arXiv:2310.18235.
Data: TencentQQGYLab/ELLA, commit 3c228f1, Apache-2.0. The prompts are bundled; the question file
(`dpg_bench/dpg_bench.csv`, git blob 98457fc9) is the user's: `--data` or `BLIP3O_EVAL_DPG_QUESTIONS` names it once.
Scorer: `dpg_bench/compute_dpg_bench.py` of that commit, written anew in `dpg_rules` and compared with
recorded figures of the original. Its judge is mPLUG-large (VQA); a result names its judge, and
results of two judges do not compare.

Worth: published figures of one model differ by up to 18 points between its authors and users, and
the category columns of the official script are wrong when it runs in several processes (its default).
Compare overall scores only, and those only where one judge made both.

Version 1: modes `official` (the script with its mistakes) and `fixed`; `overall` is `fixed`.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.api import Sample, TaskKind
from evals.errors import InputError, MissingRequirementError
from evals.io.remembered import remember_path, remembered_path
from tasks.generation import dpg_rules as rules
from tasks.generation.dpg_graph import QuestionGraphTask

if TYPE_CHECKING:
    from evals.recorded import Field

QUESTIONS_VARIABLE = "BLIP3O_EVAL_DPG_QUESTIONS"
QUESTIONS_FILE = "dpg_bench.csv"
QUESTIONS_BLOB = "98457fc9901943f51ff9a30367250fc292533bed"
QUESTIONS_URL = (
    "https://raw.githubusercontent.com/TencentQQGYLab/ELLA/"
    "3c228f1dc6c4d3cad0a47493816151a419f14db3/dpg_bench/dpg_bench.csv"
)


class Dpg(QuestionGraphTask):
    """The task; see the module's card. Groups are the families of prompts that ids begin with."""

    name = "dpg"
    version = "1"
    kind: TaskKind = "generation"
    groups = (
        "plain", "partiprompts", "COCOval", "countbench", "diffusiondb", "drawtext", "localized",
        "midjourney", "posescript", "stanford", "vrd", "whoops",
    )  # fmt: skip
    num_images = 4
    judges: Mapping[str, str] = {"photos": "blip-vqa"}
    judge_methods = ("ask",)
    picture_layouts = ("numbered", "grids")
    recorded_kinds = ("answers",)
    card: Mapping[str, str] = {
        "measures": "everything that a dense prompt describes: objects, attributes, relations, text",
        "paper": "Hu et al., ELLA, arXiv:2403.05135",
        "data": "TencentQQGYLab/ELLA, commit 3c228f1: 1,065 prompts, 4 pictures each",
        "licence": "Apache-2.0",
        "scorer": "the rules of TencentQQGYLab/ELLA, commit 3c228f1, on the judge's answers",
        "worth": (
            "Published figures of one model differ by up to 18 points between authors and users, and the "
            "official category columns are wrong when made by several processes. Compare overall scores "
            "of one judge only."
        ),
    }

    def __init__(self, data: str | Path | None = None) -> None:
        """``data``: the question file, or its folder."""
        self._data = data

    @cached_property
    def _prompts(self) -> bytes:
        packed = resources.files("tasks").joinpath("data/dpg_bench/prompts.jsonl.gz").read_bytes()
        return gzip.decompress(packed)

    @cached_property
    def rows(self) -> Sequence[rules.Row]:
        """The question file. Raises MissingRequirementError or InputError."""
        return rows_of(self._table)

    @cached_property
    def _questions(self) -> Path:
        """`--data`, else the environment, else the file that was right the last time."""
        given = self._data or os.environ.get(QUESTIONS_VARIABLE)
        path = Path(given).expanduser() if given else remembered_path(self.name)
        if path is None:
            raise MissingRequirementError(
                f"task 'dpg' needs the official question file: `curl -LO {QUESTIONS_URL}`, then give it with "
                f"--data or set {QUESTIONS_VARIABLE} to its path; later runs remember it"
            )
        return path / QUESTIONS_FILE if path.is_dir() else path

    @cached_property
    def _table(self) -> list[dict[str, str]]:
        table = _read_table(self._questions)
        remember_path(self.name, self._questions)
        return table

    @cached_property
    def _texts(self) -> Mapping[tuple[str, int], str]:
        return {
            (row["item_id"], int(row["proposition_id"])): row["question_natural_language"]
            for row in self._table
        }

    def question(self, item_id: str, proposition_id: int) -> str:
        return self._texts[item_id, proposition_id]

    def samples(self) -> Sequence[Sample]:
        """The 1,065 prompts in the order of their files. Needs the question file."""
        known = rules.fixed_items(self.rows)
        records = [json.loads(line) for line in self._prompts.splitlines()]
        missing = [r["id"] for r in records if r["id"] not in known]
        if missing:
            raise InputError(
                f"{self._questions}: no questions for {len(missing)} of {len(records)} prompts, the first "
                f"is {missing[0]!r}"
            )
        return [
            Sample(r["id"], number, _family(r["id"]), r["prompt"], metadata=r)
            for number, r in enumerate(records)
        ]

    def digest(self) -> str:
        return hashlib.sha256(self._prompts + QUESTIONS_BLOB.encode()).hexdigest()

    def score_recorded(self, kind: str, lines: Sequence[Field]) -> Sequence[Mapping[str, Any]]:
        """Score recorded answers; `dpg_records` says what a line holds."""
        from tasks.generation.dpg_records import score_answers

        return [score_answers(line) for line in lines]

    def notes_on_recorded(self, kind: str, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """What a reader of the scored rows has to know."""
        from evals.recorded import notes_on_repeats

        return notes_on_repeats(rows, "id")


def _family(item_id: str) -> str:
    """ "partiprompts" of "partiprompts97"; "plain" of an id that is a number."""
    name = item_id.rstrip("0123456789")
    return "COCOval" if name.startswith("COCOval") else name or "plain"


def rows_of(table: Sequence[Mapping[str, str]]) -> list[rules.Row]:
    """What the rules read of the question file's rows."""
    return [
        rules.Row(
            row["item_id"],
            int(row["proposition_id"]),
            tuple(int(part) for part in row["dependency"].split(",")),
            row["tuple"] or None,
        )
        for row in table
    ]


def _read_table(path: Path) -> list[dict[str, str]]:
    """The rows of the official file. A copy with other line ends or a byte order mark is the same file.

    Raises: InputError if it cannot be read or is another version: published figures rest on one.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    plain = raw.removeprefix(b"\xef\xbb\xbf")
    unix = plain.replace(b"\r\n", b"\n")
    for text in (raw, plain, unix, unix.replace(b"\n", b"\r\n")):
        if _git_blob(text) == QUESTIONS_BLOB:
            return list(csv.DictReader(io.StringIO(text.decode("utf-8"), newline="")))
    raise InputError(
        f"{path}: git blob {_git_blob(raw)[:8]} is not the official question file ({QUESTIONS_BLOB[:8]}): "
        f"get it with `curl -LO {QUESTIONS_URL}`"
    )


def _git_blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()
