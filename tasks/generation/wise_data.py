"""WISE's prompts from the user's files: upstream's JSON lists, or JSON lines with the same keys.

An entry has `prompt_id` (1 to 1,000), `Prompt`, `Explanation`, `Category` and `Subcategory`. A folder is read by the
names of upstream's three files; where none of them is there, all its .json and .jsonl files are read. One file may be
given instead of a folder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from evals.api import Sample
from evals.errors import InputError
from evals.io import strict_json
from evals.recorded import Field, read_lines
from tasks.generation.wise_rules import NUM_PROMPTS, Edition

STEMS = ("cultural_common_sense", "spatio-temporal_reasoning", "natural_science")
SUFFIXES = {"wise": ".json", "wise_verified": "_verified.json"}
"""Edition -> what follows `STEMS` in the names of upstream's files."""
FOLDERS = {"wise": "WISE_legacy/data", "wise_verified": "data_verified"}
"""Edition -> its folder in upstream's repository."""
TEXTS = ("Prompt", "Explanation", "Category", "Subcategory")
# What upstream's files call the groups; other categories say nothing about the edition.
_CATEGORIES = {
    "cultural knowledge": "culture", "time": "time", "space": "space", "biology": "biology",
    "physical knowledge": "physics", "chemistry": "chemistry",
}  # fmt: skip


@dataclass(frozen=True)
class WiseData:
    """The prompts in the order of their numbers, and the files they come from."""

    samples: tuple[Sample, ...]
    files: tuple[Path, ...]

    @cached_property
    def missing(self) -> tuple[int, ...]:
        """Numbers of the protocol's prompts that the files do not hold."""
        here = {sample.number + 1 for sample in self.samples}
        return tuple(n for n in range(1, NUM_PROMPTS + 1) if n not in here)

    def digest(self) -> str:
        """sha256 over the records and their groups."""
        total = hashlib.sha256()
        for sample in self.samples:
            total.update(json.dumps([sample.group, dict(sample.metadata)], sort_keys=True).encode() + b"\n")
        return total.hexdigest()


def read(place: Path, edition: Edition) -> WiseData:
    """Raises InputError, naming file and entry, for what is no prompt of the edition."""
    files = _files(place, edition)
    samples: dict[int, Sample] = {}
    origins: dict[int, str] = {}
    for path in files:
        for entry in _entries(path):
            sample = _sample(entry, edition)
            number = sample.number + 1
            if number in samples:
                entry["prompt_id"].fail(f"{number} stands twice, first in {origins[number]}: keep one of them")
            samples[number], origins[number] = sample, entry.where
    return WiseData(tuple(samples[number] for number in sorted(samples)), tuple(files))


def _files(place: Path, edition: Edition) -> Sequence[Path]:
    names = [stem + SUFFIXES[edition.name] for stem in STEMS]
    if not place.is_dir():
        if not place.is_file():
            raise InputError(f"{place}: there is no such file or folder; {_advice(edition)}")
        return [place]
    found = [place / name for name in names if (place / name).is_file()]
    found = found or sorted(p for p in place.iterdir() if p.suffix in (".json", ".jsonl") and p.is_file())
    if not found:
        raise InputError(f"{place}: holds neither {names[0]} nor other .json or .jsonl files; {_advice(edition)}")
    return found


def _advice(edition: Edition) -> str:
    return f"--data takes upstream's folder {FOLDERS[edition.name]} (docs/wise.md)"


def _entries(path: Path) -> Iterator[Field]:
    if path.suffix == ".jsonl":
        yield from read_lines(path)
        return
    try:
        value = strict_json.parse(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except strict_json.NotJsonError as error:
        raise InputError(f"{path}: not JSON: {error}; JSON lines end in .jsonl") from None
    if not isinstance(value, list) or not value:
        raise InputError(f"{path}: must be a list of entries with {', '.join(('prompt_id', *TEXTS))}")
    for number, entry in enumerate(value, start=1):
        yield Field(entry, f"{path}: entry {number}")


def _sample(entry: Field, edition: Edition) -> Sample:
    number = entry["prompt_id"].integer()
    group = edition.group_of(number)
    if group is None:
        entry["prompt_id"].fail(f"must be from 1 to {NUM_PROMPTS}, got {number}")
    texts = {key: entry[key].text() for key in TEXTS}
    for key in ("Prompt", "Explanation"):
        if not texts[key].strip():
            entry[key].fail("must be a text that is not empty")
    named = _CATEGORIES.get(texts["Category"].casefold())
    if named not in (None, group):
        other = next(name for name in SUFFIXES if name != edition.name)
        entry["Category"].fail(
            f"is {entry['Category'].shown}, and prompt {number} of task {edition.name!r} belongs to {group}: these are "
            f"prompts of another edition, try --task {other}"
        )
    return Sample(str(number), number - 1, group, texts["Prompt"], metadata={**texts, "prompt_id": number})
