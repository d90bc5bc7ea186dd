"""Pictures of a run as small data URIs, and the data of the page's gallery.

Thumbnails are written in blocks apart from the other data, which the page reads when a picture of theirs is shown.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.phases import asked_pictures
from reports.failures import RIGHT
from reports.tables import MAX_TEXT, shortened
from reports.thumbnails import BUDGET_BYTES, CRISP_BELOW_PX, Setting, choose_setting, thumbnails

if TYPE_CHECKING:
    import pandas

MAX_PICTURES = 12_000  # a page beyond this shows prompts spread evenly, and says so
MAX_BOXES = 24
MAX_QUESTIONS = 64
PER_BLOCK = 240  # pictures; the first page shows 96
TEXT_BYTES = 4_000_000  # of prompts, and again of reasons and answers, in a page


@dataclass(frozen=True)
class Gallery:
    """What the page's script shows: JSON values, the pictures in base64, and how they were made small."""

    data: dict[str, Any]
    pictures: list[str]
    setting: str
    n_pictures: int
    n_left_out: int
    n_unreadable: int
    n_asked: int = 0

    @property
    def blocks(self) -> list[list[str]]:
        """The pictures in blocks of `PER_BLOCK`; picture n is in block n // PER_BLOCK."""
        return [self.pictures[i : i + PER_BLOCK] for i in range(0, len(self.pictures), PER_BLOCK)]


def build_gallery(root: Path, samples: pandas.DataFrame, budget: int = BUDGET_BYTES) -> Gallery:
    """The gallery of a run whose `samples` are `reports.tables.samples_frame`'s.

    Each sample is {"id", "p": prompt, "g": group, "h": held out, "in": pictures it is about, "Q": questions, "o":
    outputs}; an output is {"i": index, "v": value, "k": kinds, "r": reason, "u": unscored, "s": seed, "a": text answer,
    "e": the expected one, "w", "h": pixels, "b": boxes [class, x1, y1, x2, y2, score], "d": 1 if a detector looked,
    "c": colours, "q": question -> answer, "t": number of the picture}. Pictures asked about are [number, width,
    height]. Questions are [id, wording, tuple, ids of parents] in the order of their file. Kinds and groups are indices
    into the lists beside.
    """
    has_path = samples["path"].notna()
    kept = shown_samples(samples)
    paths = [root / path for path in samples["path"][has_path]]
    n_pictures = min(len(paths), MAX_PICTURES)
    # A page of 10,000 pictures may be larger than one of 2,212, though not in proportion.
    setting = choose_setting(paths, n_pictures, budget + 1_000 * max(0, n_pictures - 2_500))
    groups = list(dict.fromkeys(samples["group"]))
    counts: dict[str, int] = {}
    for kinds in samples["kinds"]:
        for kind in kinds:
            counts[kind] = counts.get(kind, 0) + 1
    names = sorted((k for k in counts if k != RIGHT), key=lambda k: -counts[k])
    names = [RIGHT, *names] if RIGHT in counts else names
    prompt_limit, text_limit = _limits(kept["sample_id"].nunique()), _limits(len(kept))
    entries: dict[str, dict[str, Any]] = {}
    for row in kept.to_dict("records"):
        details = row["details"] if isinstance(row["details"], dict) else {}
        entry = entries.setdefault(
            row["sample_id"],
            {
                "id": row["sample_id"],
                "p": shortened(row["prompt"], prompt_limit),
                "g": groups.index(row["group"]),
                "h": details.get("held_out"),
                "o": [],
            },
        )
        if entry["h"] is None:
            entry["h"] = details.get("held_out")
        if "Q" not in entry and (questions := _questions(details.get("questions"))):
            entry["Q"] = questions
        entry["o"].append(_output(row, details, names, text_limit))
        if row["path"]:
            entry["o"][-1]["path"] = root / row["path"]
    ordered = interleaved(list(entries.values()), len(groups))
    pictures, unreadable = _pictures(ordered, setting)
    n_asked = _add_asked(ordered, pictures, asked_pictures.read(root), budget)
    return Gallery(
        data={
            "groups": groups,
            "kinds": names,
            "crispBelow": CRISP_BELOW_PX,
            "perBlock": PER_BLOCK,
            "samples": ordered,
        },
        pictures=pictures,
        setting=str(setting),
        n_pictures=int(kept["path"].notna().sum()),
        n_left_out=len(samples) - len(kept),
        n_unreadable=unreadable,
        n_asked=n_asked,
    )


def side_by_side(
    galleries: Sequence[Gallery], places: Sequence[int], names: Sequence[str], n_outputs: int
) -> Gallery:
    """Several galleries as one whose samples hold the outputs of all, in the order of the prompts' numbers.

    Args: places: index into `names` (runs or cells) of each gallery. n_outputs: of all runs, shown or not.
    """
    kinds = list(dict.fromkeys(kind for gallery in galleries for kind in gallery.data["kinds"]))
    groups = list(dict.fromkeys(group for gallery in galleries for group in gallery.data["groups"]))
    by_id: dict[str, dict[str, Any]] = {}
    pictures: list[str] = []
    for gallery, place in zip(galleries, places, strict=True):
        offset = len(pictures)
        pictures += gallery.pictures
        for entry in gallery.data["samples"]:
            entry["g"] = groups.index(gallery.data["groups"][entry["g"]])
            if "in" in entry:
                entry["in"] = [[number + offset, *size] for number, *size in entry["in"]]
            for output in entry["o"]:
                output["k"] = [kinds.index(gallery.data["kinds"][k]) for k in output["k"]]
                output["n"] = place
                if "t" in output:
                    output["t"] += offset
            if entry["id"] in by_id:
                by_id[entry["id"]]["o"] += entry["o"]
                if "Q" in entry:
                    by_id[entry["id"]].setdefault("Q", entry["Q"])
            else:
                by_id[entry["id"]] = entry
    entries = interleaved(sorted(by_id.values(), key=lambda e: str(e["id"])), len(groups))
    return Gallery(
        data={**galleries[0].data, "groups": groups, "kinds": kinds, "runs": list(names), "samples": entries},
        pictures=pictures,
        setting="; ".join(dict.fromkeys(g.setting for g in galleries)),
        n_pictures=sum(g.n_pictures for g in galleries),
        n_left_out=n_outputs - sum(len(e["o"]) for e in entries),
        n_unreadable=sum(g.n_unreadable for g in galleries),
        n_asked=max(g.n_asked for g in galleries),
    )


def _limits(n: int) -> int:
    return max(160, min(MAX_TEXT, TEXT_BYTES // max(1, n)))


def _pictures(entries: Sequence[dict[str, Any]], setting: Setting) -> tuple[list[str], int]:
    """The thumbnails in the order in which a page shows them, and how many files could not be read.

    Each output's `path` becomes its picture's number and size.
    """
    outputs = [output for entry in entries for output in entry["o"] if "path" in output]
    found: list[str] = []
    paths = [output.pop("path") for output in outputs]
    for output, made in zip(outputs, thumbnails(paths, setting), strict=True):
        if made is not None:
            output["w"], output["h"] = made.width, made.height
            output["t"] = len(found)
            found.append(made.encoded)
    return found, len(outputs) - len(found)


def _add_asked(
    entries: Sequence[dict[str, Any]], pictures: list[str], asked: Mapping[str, Sequence[Path]], budget: int
) -> int:
    """Put the pictures that samples are about behind the others, each once; how many samples have any."""
    paths = list(dict.fromkeys(path for entry in entries for path in asked.get(entry["id"], ())))
    made = dict(zip(paths, thumbnails(paths, choose_setting(paths, len(paths), budget)), strict=True))
    places: dict[Path, list[int]] = {}
    for path, thumbnail in made.items():
        if thumbnail is not None:
            places[path] = [len(pictures), thumbnail.width, thumbnail.height]
            pictures.append(thumbnail.encoded)
    for entry in entries:
        if found := [places[path] for path in asked.get(entry["id"], ()) if path in places]:
            entry["in"] = found
    return sum("in" in entry for entry in entries)


def interleaved(entries: Sequence[dict[str, Any]], n_groups: int) -> list[dict[str, Any]]:
    """One sample of each group in turn, so that the first page shows them all."""
    places = [0] * n_groups
    keyed = []
    for entry in entries:
        keyed.append((places[entry["g"]], entry["g"]))
        places[entry["g"]] += 1
    return [entries[i] for i in sorted(range(len(entries)), key=keyed.__getitem__)]


def _output(
    row: dict[str, Any], details: dict[str, Any], names: Sequence[str], limit: int
) -> dict[str, Any]:
    output: dict[str, Any] = {
        "i": row["image_index"],
        "v": row["value"],
        "k": [names.index(kind) for kind in row["kinds"]],
        "s": row["seed"],
    }
    if isinstance(expected := details.get("expected"), str | int):
        output["e"] = shortened(str(expected), limit)
    for key, column in (("r", "reason"), ("u", "unscored"), ("a", "answer"), ("x", "text")):
        if row[column]:
            output[key] = shortened(row[column], limit)
    if isinstance(details.get("detections"), dict):
        output["d"] = 1
    if boxes := list(_boxes(details.get("detections"))):
        output["b"] = boxes
    colors = [e for e in details.get("colors") or () if isinstance(e, dict)]
    if colors:
        output["c"] = [
            [shortened(str(e.get(k) or ""), 40) for k in ("class", "asked", "color", "pixel_color")]
            for e in colors
        ]
    answers = details.get("answers")
    if isinstance(answers, dict):
        pairs = list(answers.items())[:MAX_QUESTIONS]
        output["q"] = {shortened(str(key), 40): shortened(str(value), 40) for key, value in pairs}
    return output


def _questions(found: Any) -> list[list[Any]]:
    """The questions about a prompt, with those they rest on; [] where the score's details hold none."""
    rows = list(found.items())[:MAX_QUESTIONS] if isinstance(found, dict) else []
    return [
        [
            shortened(str(key), 40),
            shortened(str(one.get("text") or ""), 160),
            shortened(str(one.get("tuple") or ""), 80),
            [shortened(str(parent), 40) for parent in one.get("parents") or () if isinstance(parent, int | str)],
        ]
        for key, one in rows
        if isinstance(one, dict)
    ]


def _boxes(detections: Any) -> Iterable[list[Any]]:
    if not isinstance(detections, dict):
        return
    rows = [
        (name, row)
        for name, found in detections.items()
        for row in (found if isinstance(found, list) else ())
    ]
    for name, row in rows[:MAX_BOXES]:
        if isinstance(row, list) and len(row) == 5 and all(map(_is_finite, row)):
            yield [
                shortened(str(name), 40),
                *(round(float(x), 1) for x in row[:4]),
                round(float(row[4]), 3),
            ]


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30



def shown_samples(samples: pandas.DataFrame) -> pandas.DataFrame:
    """All samples, or every n-th with all its outputs where a page cannot hold them all."""
    every = math.ceil(len(samples) / MAX_PICTURES)
    if every <= 1:
        return samples
    ids = list(dict.fromkeys(samples["sample_id"]))[::every]
    return samples[samples["sample_id"].isin(set(ids))]
