"""What scripts about nano's pictures share: pictures of a finished run, real scenes of its prompts, features."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blip3o.stickers import Scene, SceneConfig, make_scene, render
from blip3o.stickers.layout import arrange
from blip3o.stickers.rng import Stream
from evals.results import load
from tasks.generation.geneval import GenEval

TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")
WORLD = SceneConfig.level("easy")


@dataclass(frozen=True)
class Drawn:
    """A picture of a run: which prompt, and the judge's verdict (None: not scored). `image`: (H, W, 3) uint8."""

    sample_id: str
    tag: str
    prompt: str
    value: float | None
    image: np.ndarray


def of_run(root: Path, tag: str, prompts: int, per_prompt: int) -> list[list[Drawn]]:
    """Pictures of `prompts` prompts of a tag, at even distances, `per_prompt` of each; fewer where there are fewer."""
    from PIL import Image

    run = load(root)
    values = {(r["sample_id"], r["image_index"]): r.get("value") for r in run.scores()}
    by_prompt: dict[str, list[dict[str, Any]]] = {}
    for row in run.outputs():
        if row["group"] == tag and row["status"] == "ok":
            by_prompt.setdefault(row["sample_id"], []).append(row)
    found = []
    for sample_id in even(list(by_prompt), prompts):
        rows = sorted(by_prompt[sample_id], key=lambda r: r["image_index"])[:per_prompt]
        found.append([
            Drawn(sample_id, tag, r["prompt"], values.get((sample_id, r["image_index"])),
                  np.array(Image.open(root / r["path"]).convert("RGB"))) for r in rows
        ])  # fmt: skip
    return found


def even(items: Sequence[Any], n: int) -> list[Any]:
    """At most n of them, at even distances."""
    return list(items) if len(items) <= n else [items[i * len(items) // n] for i in range(n)]


def specs() -> Mapping[str, Mapping[str, Any]]:
    """Prompt id -> GenEval's record."""
    return {sample.id: sample.metadata for sample in GenEval().samples()}


def real(spec: Mapping[str, Any], tag: str, *name: Any) -> np.ndarray:
    """A scene that a GenEval record asks for, chosen by `name` and in no split: (64, 64, 3) uint8."""
    objects, relation = [], None
    for clause in spec["include"]:
        objects += [(clause["class"], clause.get("color"))] * clause["count"]
        relation = clause["position"][0] if "position" in clause else relation
    if relation:
        objects.reverse()  # the record names the reference first, a scene the placed object
    stickers, background = arrange(Stream("real scenes", *name), tag, objects, relation, WORLD)
    return render(Scene("test", 0, tag, stickers, background, relation, WORLD.size_px)).image


def training(first: int, count: int) -> Iterator[np.ndarray]:
    """Scenes that nano's generator was trained on: split train, from index 0 on."""
    for index in range(first, first + count):
        yield render(make_scene("train", index, WORLD)).image


class Features:
    """The classifier of `fid_stickers`: it shares no weights with nano or the judge. (N, 96) float32."""

    def __init__(self) -> None:
        from evals.api import ModelOptions
        from evals.judges.features import create_stickers

        self.judge = create_stickers("", ModelOptions())

    def __call__(self, images: Sequence[np.ndarray], batch: int = 64) -> np.ndarray:
        from PIL import Image

        parts = [
            self.judge.extract([Image.fromarray(i) for i in images[k : k + batch]]).features
            for k in range(0, len(images), batch)
        ]
        return np.concatenate(parts)


def interval(values: Sequence[float], ids: Sequence[str]) -> dict[str, Any]:
    """Mean with its 95 % interval, prompts as units."""
    from evals import stats

    found = stats.mean(list(values), list(ids))
    return {"value": round(found.value, 4), "ci95": [round(b, 4) for b in found.ci] if found.ci else None, "n": found.n}


def write(out: Path, name: str, figures: Mapping[str, Any]) -> None:
    """Figures as JSON beside their pictures, and on stdout."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(figures, indent=1)
    (out / f"{name}.json").write_text(text + "\n", encoding="utf-8")
    print(text)


def digest_of(root: Path) -> str:
    """Which weights drew the run's pictures."""
    return str(load(root).manifest["model"].get("weights_sha256"))[:12]
