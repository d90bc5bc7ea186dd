"""nano's pictures looked at: contact sheets, diversity per prompt, and whether they are training scenes.

    python tests/benchmarks/quality_of_nano.py sheets RUN OUT        64 prompts of each tag, frames by verdict
    python tests/benchmarks/quality_of_nano.py diversity RUN OUT     pictures of one prompt against real scenes of it
    python tests/benchmarks/quality_of_nano.py memory RUN OUT        nearest training scenes, against held-out scenes

RUN is a finished folder of `blip3o-eval run --task geneval` (two pictures a prompt or more for diversity), of any model
of the sticker world. Each writes JSON and WebP into OUT. Distances are those of the features of `fid_stickers` and of
pixels; intervals resample prompts.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from nano_pictures import (
    TAGS,
    Drawn,
    Features,
    digest_of,
    interval,
    of_run,
    real,
    specs,
    training,
    write,
)
from PIL import Image, ImageDraw

GREEN, RED, GREY = (46, 140, 70), (200, 60, 50), (150, 150, 150)


def sheets(run: Path, out: Path, options: argparse.Namespace) -> None:
    """A sheet of 8 columns for each tag: the first picture of each prompt, with its prompt."""
    out.mkdir(parents=True, exist_ok=True)
    figures = {}
    for tag in TAGS:
        drawn = [group[0] for group in of_run(run, tag, options.prompts or 64, 1)]
        cell, columns = 132, 8
        sheet = Image.new("RGB", (columns * cell, -(-len(drawn) // columns) * (cell + 26)), "white")
        draw = ImageDraw.Draw(sheet)
        for i, one in enumerate(drawn):
            x, y = i % columns * cell, i // columns * (cell + 26)
            color = GREY if one.value is None else GREEN if one.value >= 1 else RED
            draw.rectangle((x, y, x + cell - 3, y + cell - 3), fill=color)
            picture = Image.fromarray(one.image).resize((cell - 8, cell - 8), Image.Resampling.NEAREST)
            sheet.paste(picture, (x + 2, y + 2))
            words = one.prompt.removeprefix("a photo of ")
            for k in range(2):
                draw.text((x, y + cell - 2 + 12 * k), words[22 * k : 22 * (k + 1)], fill="black")
        sheet.save(out / f"sheet-{tag}.webp", quality=80)
        figures[tag] = {"pictures": len(drawn), "right": sum(one.value == 1 for one in drawn)}
    write(out, "sheets", {"weights": digest_of(run), **figures})


def diversity(run: Path, out: Path, options: argparse.Namespace) -> None:
    """Mean pairwise distance of a prompt's pictures, of its right ones alone, and of as many real scenes of it."""

    features, known, figures = Features(), specs(), {}
    everything: dict[str, list[tuple[str, float, float]]] = {"all": [], "right": []}
    for tag in TAGS:
        groups = [g for g in of_run(run, tag, options.prompts or 40, 4) if len(g) > 1]
        per_tag: dict[str, list[tuple[str, float, float]]] = {"all": [], "right": []}
        for group in groups:
            scenes = [real(known[group[0].sample_id], tag, group[0].sample_id, k) for k in range(len(group))]
            found = features([one.image for one in group] + scenes)
            own, other = found[: len(group)], found[len(group) :]
            right = [i for i, one in enumerate(group) if one.value == 1]
            per_tag["all"].append((group[0].sample_id, spread(own), spread(other)))
            if len(right) > 1:
                per_tag["right"].append((group[0].sample_id, spread(own[right]), spread(other[: len(right)])))
        figures[tag] = {kind: _compared(rows) for kind, rows in per_tag.items()}
        for kind, rows in per_tag.items():
            everything[kind] += rows
    figures["all tags"] = {kind: _compared(rows) for kind, rows in everything.items()}
    write(out, "diversity", {"weights": digest_of(run), **figures})
    _bars(figures, out / "diversity.webp")


def spread(features: np.ndarray) -> float:
    """Mean distance between all pairs of rows."""
    return float(np.mean([np.linalg.norm(features[a] - features[b]) for a, b in combinations(range(len(features)), 2)]))


def _compared(rows: Sequence[tuple[str, float, float]]) -> dict[str, object]:
    if not rows:
        return {"prompts": 0}
    ids = [i for i, _, _ in rows]
    own, other = [d for _, d, _ in rows], [d for _, _, d in rows]
    ratio = float(np.mean(own) / np.mean(other))
    source = np.random.default_rng(0)
    picks = source.integers(0, len(rows), (2000, len(rows)))
    ratios = np.array(own)[picks].mean(1) / np.array(other)[picks].mean(1)
    return {
        "prompts": len(rows), "model": interval(own, ids), "real": interval(other, ids), "ratio": round(ratio, 3),
        "ratio_ci95": [round(float(q), 3) for q in np.quantile(ratios, (0.025, 0.975))] if len(rows) > 4 else None,
    }  # fmt: skip


def memory(run: Path, out: Path, options: argparse.Namespace) -> None:
    """Distance to the nearest of many training scenes: of the model's pictures, and of other scenes of its prompts."""
    known = specs()
    drawn: list[Drawn] = [g[0] for tag in TAGS for g in of_run(run, tag, options.prompts or 32, 1)]
    held_out = [real(known[one.sample_id], one.tag, one.sample_id, "held out") for one in drawn]
    features, pictures = Features(), [one.image for one in drawn] + held_out
    asked = {"features": features(pictures), "pixels": _small(pictures)}
    nearest = {name: np.full(len(pictures), np.inf) for name in asked}
    place = {name: np.zeros(len(pictures), dtype=int) for name in asked}
    for first in range(0, options.train, 1024):
        scenes = list(training(first, min(1024, options.train - first)))
        for name, made in (("features", features(scenes)), ("pixels", _small(scenes))):
            squared = (asked[name] ** 2).sum(1)[:, None] + (made**2).sum(1)[None] - 2 * asked[name] @ made.T
            best = squared.argmin(1)
            distance = np.sqrt(np.maximum(squared[np.arange(len(best)), best], 0) / made.shape[1])
            is_nearer = distance < nearest[name]
            nearest[name][is_nearer], place[name][is_nearer] = distance[is_nearer], first + best[is_nearer]
    n, figures = len(drawn), {}
    for name, distances in nearest.items():
        own, other = distances[:n], distances[n:]
        figures[name] = {
            "model_median": float(np.median(own)), "held_out_median": float(np.median(other)),
            "model_minimum": float(own.min()), "held_out_minimum": float(other.min()),
            "nearer_than_5_percent_of_held_out": interval(
                [float(d < np.quantile(other, 0.05)) for d in own], [one.sample_id for one in drawn]
            ),
            "model_nearer_than_held_out_of_its_prompt": interval(
                (own < other).astype(float).tolist(), [one.sample_id for one in drawn]
            ),
        }  # fmt: skip
    write(out, "memory", {"weights": digest_of(run), "pictures": n, "training_scenes": options.train, **figures})
    _memory_figure(drawn, nearest, place["pixels"], out / "memory.webp")


def _small(images: Sequence[np.ndarray]) -> np.ndarray:
    """(N, 3072) float32: pictures of 32 px, means of four pixels, 0..255."""
    found = np.stack(images).astype(np.float32)
    side = found.shape[1] // 32
    return found.reshape(len(found), 32, side, 32, side, 3).mean((2, 4)).reshape(len(found), -1)


def _memory_figure(drawn: list[Drawn], nearest: dict[str, np.ndarray], place: np.ndarray, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    n, shown = len(drawn), np.argsort(nearest["pixels"][: len(drawn)])[:10]
    fig = plt.figure(figsize=(9, 5.2), layout="constrained")
    grid = fig.add_gridspec(3, 10, height_ratios=(3, 1, 1))
    for column, (name, unit) in enumerate((("features", "per dimension"), ("pixels", "of 255"))):
        ax = fig.add_subplot(grid[0, 5 * column : 5 * column + 5])
        for label, part in (("model", nearest[name][:n]), ("held-out scenes", nearest[name][n:])):
            ax.plot(np.sort(part), (np.arange(len(part)) + 1) / len(part), label=label)
        ax.set(xlabel=f"to the nearest training scene, {name} (rms {unit})", ylabel="share of pictures")
        ax.legend(frameon=False)
    for i, k in enumerate(shown):
        for row, image in ((1, drawn[k].image), (2, next(training(int(place[k]), 1)))):
            ax = fig.add_subplot(grid[row, i])
            ax.imshow(image)
            ax.set(xticks=[], yticks=[])
            if i == 0:
                ax.set_ylabel("model" if row == 1 else "nearest")
    save(fig, path)


def _bars(figures: dict[str, dict[str, dict]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(7, 3.2), layout="constrained")
    for shift, kind in ((-0.15, "all"), (0.15, "right")):
        for i, figure in enumerate(figures.values()):
            part = figure[kind]
            if part.get("ratio_ci95"):
                ax.plot([i + shift] * 2, part["ratio_ci95"], color="C0" if kind == "all" else "C1")
            if "ratio" in part:
                label = {"all": "all pictures", "right": "right ones"}[kind] if i == len(figures) - 1 else None
                ax.plot([i + shift], [part["ratio"]], "o", color="C0" if kind == "all" else "C1", label=label)
    ax.axhline(1, color="grey", linewidth=0.8)
    ax.set_xticks(range(len(figures)), [name.replace("_", "\n") for name in figures])
    ax.set_ylabel("distance between pictures of a prompt\nas a multiple of real scenes'")
    ax.legend(frameon=False)
    save(fig, path)


def save(fig: object, path: Path) -> None:
    """A matplotlib figure as WebP, which matplotlib itself does not write."""
    import io

    file = io.BytesIO()
    fig.savefig(file, format="png", dpi=110)  # type: ignore[attr-defined]
    Image.open(file).convert("RGB").save(path, quality=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("sheets", "diversity", "memory"))
    parser.add_argument("run", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--prompts", type=int, help="of each tag (default: 64, 40, 32)")
    parser.add_argument("--train", type=int, default=20_480, help="training scenes to search")
    options = parser.parse_args()
    {"sheets": sheets, "diversity": diversity, "memory": memory}[options.what](options.run, options.out, options)


if __name__ == "__main__":
    main()
