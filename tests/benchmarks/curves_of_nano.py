"""nano's score against guidance and against sampling steps, on held-out scenes: what its defaults are chosen by.

    python tests/benchmarks/curves_of_nano.py OUT [--model nano] [--scenes 192] [--guidance 1 2 3 4] [--steps 5 10 20]

Prompts are those of scenes of split `val`, never GenEval's 553, at equal numbers of each tag. Guidance varies at the
model's own steps, steps at its own guidance. A scene has the same noise in every setting, so settings are compared in
pairs; intervals resample scenes within tags. Every picture costs one sampling; 192 scenes take about a minute of one
core a setting with 20 steps. Writes curves.json and curves.webp; a setting whose figure is there already is not
drawn again, so a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import count
from pathlib import Path
from typing import Any

import torch
from nano_pictures import TAGS, WORLD, write
from quality_of_nano import save

from blip3o import Blip3oPipeline
from blip3o.presets import preset_folder
from blip3o.stickers import Scene, make_scene
from blip3o.stickers.captions import prompt
from evals import stats
from evals.io.digests import folder_digest
from evals.judges.stickers import StickersJudge
from evals.models.blip3o import _DIGESTED
from tasks.generation import geneval_rules
from tasks.generation.geneval import _found

SPLIT, FIRST, BATCH = "val", 20_000, 16


def scenes_of(number: int) -> list[Scene]:
    """Scenes of split val, as many of each tag."""
    left = dict.fromkeys(TAGS, -(-number // len(TAGS)))
    found = []
    for index in count(FIRST):
        scene = make_scene(SPLIT, index, WORLD)
        if left.get(scene.kind, 0) > 0:
            left[scene.kind] -= 1
            found.append(scene)
        if not any(left.values()):
            return found
    raise AssertionError("count() does not end")


def weights_folder(model: str) -> Path:
    """The folder of a preset, or the one that is named."""
    return Path(model) if Path(model).is_dir() else preset_folder(model)


def verdicts(
    pipe: Any, judge: StickersJudge, scenes: list[Scene], guidance: float | None, steps: int | None
) -> list[float]:
    """GenEval's verdict on one picture of each scene's prompt, 0 or 1."""
    found = []
    for start in range(0, len(scenes), BATCH):
        part = scenes[start : start + BATCH]
        generators = [torch.Generator().manual_seed(start + i) for i in range(len(part))]
        pictures = pipe(
            [prompt(s) for s in part], guidance_scale=guidance, num_inference_steps=steps, generator=generators
        ).images
        specs = [scene.spec() for scene in part]
        asked = [[clause["class"] for clause in spec["include"] if "color" in clause] for spec in specs]
        for spec, detections in zip(specs, judge.detect(pictures, asked), strict=True):
            named = [(detection.class_name, _found(detection)) for detection in detections]
            found.append(float(geneval_rules.judge(named, spec).correct))
    return found


def figure_of(scenes: list[Scene], values: list[float], against: list[float] | None) -> dict[str, Any]:
    """Overall (mean of tags) with its interval, each tag, and the paired difference to the model's own setting."""
    by_tag = {t: [v for v, s in zip(values, scenes, strict=True) if s.kind == t] for t in TAGS}
    tags, ids = [s.kind for s in scenes], [str(s.index) for s in scenes]
    found = stats.mean_of_strata(values, tags, ids)
    result: dict[str, Any] = {
        "overall": round(found.value, 4), "ci95": [round(b, 4) for b in found.ci] if found.ci else None,
        "tags": {t: round(sum(own) / len(own), 4) for t, own in by_tag.items()},
        "values": [int(v) for v in values],
    }  # fmt: skip
    if against is not None and against != values:
        paired = stats.paired_difference(values, against, ids, tags)
        result["minus_own"] = [round(x, 4) for x in (paired.value, paired.lo, paired.hi, paired.p_value)]
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", default="nano", help="preset, folder or export")
    parser.add_argument("--scenes", type=int, default=192)
    parser.add_argument("--guidance", type=float, nargs="*", default=[1, 2, 3, 4, 5])
    parser.add_argument("--steps", type=int, nargs="*", default=[5, 10, 20, 40])
    options = parser.parse_args()
    pipe, judge = Blip3oPipeline.from_pretrained(options.model), StickersJudge()
    judge.load()
    scenes = scenes_of(options.scenes)
    settings = [("own", None, None)]
    settings += [("guidance", g, None) for g in options.guidance] + [("steps", None, n) for n in options.steps]
    weights = folder_digest(weights_folder(options.model), _DIGESTED)[:12]  # other weights, other figures
    about = {"model": options.model, "weights": weights, "scenes": len(scenes), "split": SPLIT, "first": FIRST}
    kept = options.out / "curves.json"
    old = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    done: dict[str, Any] = old["settings"] if old.get("about") == about else {}
    for axis, guidance, steps in settings:
        name = axis if axis == "own" else f"{axis}={guidance if axis == 'guidance' else steps:g}"
        if name not in done:
            start = time.process_time()
            values = verdicts(pipe, judge, scenes, guidance, steps)
            own = [float(v) for v in done["own"]["values"]] if "own" in done else None
            done[name] = figure_of(scenes, values, own) | {"cpu_seconds": round(time.process_time() - start, 1)}
            options.out.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps({"about": about, "settings": done}) + "\n", encoding="utf-8")
    shown = {k: {a: b for a, b in v.items() if a != "values"} for k, v in done.items()}
    write(options.out, "curves-summary", {"about": about, "settings": shown})
    draw(done, options.out / "curves.webp")


def draw(done: dict[str, Any], path: Path) -> None:
    """Overall with its interval, and the tags, along both axes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained", sharey=True)
    for ax, axis in zip(axes, ("guidance", "steps"), strict=True):
        rows = sorted((float(k.partition("=")[2]), v) for k, v in done.items() if k.startswith(f"{axis}="))
        draw_tags(ax, rows)
        ax.axhline(done["own"]["overall"], color="grey", linewidth=0.8, linestyle="--")
        ax.set(xlabel=axis, ylim=(0, 1))
    axes[0].set_ylabel("right of held-out scenes")
    axes[1].legend(frameon=False, fontsize=8, ncols=2)
    save(fig, path)


def draw_tags(ax: Any, rows: list[tuple[float, dict[str, Any]]]) -> None:
    """A line for each tag, and a heavy one with intervals for overall. rows: (place on the axis, figure)."""
    xs = [x for x, _ in rows]
    for tag in TAGS:
        ax.plot(xs, [v["tags"][tag] for _, v in rows], linewidth=0.9, alpha=0.7, label=tag.replace("_", " "))
    ax.plot(xs, [v["overall"] for _, v in rows], color="black", linewidth=2, marker="o", label="overall")
    for x, v in rows:
        if v["ci95"]:
            ax.plot([x, x], v["ci95"], color="black")


if __name__ == "__main__":
    main()
