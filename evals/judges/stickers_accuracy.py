"""How often the sticker judge's GenEval verdict is the true one, and everything else known about its accuracy.

    python -m evals.judges.stickers_accuracy --scenes 2000 --write
    python -m evals.judges.stickers_accuracy --settings nano_pictures --write    # that setting anew, the others kept

Each scene is judged twice: on the spec it was made from, and on a spec made wrong on purpose (another class, count,
colour or relation), so that both kinds of error count. The true verdict comes from the same rules on an oracle's
detections, which are the scene's own boxes and colours. The setting `nano_pictures` is another thing: pictures that
`nano` made, labelled by eye (`blip3o-eval judge agree`). `--write` stores the figures beside the weights.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.api import Detection, Identity, Output, Sample, ScoreItem
from evals.judges.stickers import to_detection

if TYPE_CHECKING:
    from blip3o.stickers import Rendered, Scene

SETTINGS = {
    "seen_full": ("test", "full", False),
    "seen_easy": ("test", "easy", False),
    "unseen_style": ("unseen_style", "full", False),
    "unseen_style_easy": ("unseen_style", "easy", False),
    "worn_easy": ("test", "easy", True),
}
"""Name -> (split, level, worn). Worn pictures passed the wear of training: blur, noise, bent outlines, compression."""

NANO_PICTURES = "nano_pictures"


class OracleJudge:
    """Answers from the scene itself. `color_logits` is one-hot; untinted objects have none of the ten."""

    identity = Identity("oracle", "1", "", "stickers", is_test_double=True)

    def __init__(self, known: Sequence[tuple[Scene, Rendered]]) -> None:
        self._known = known

    def load(self) -> None: ...

    def close(self) -> None: ...

    def accuracy(self) -> Mapping[str, Any]:
        return {}

    def detect(
        self, images: Sequence[Any], color_classes: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Detection]]:
        from blip3o.stickers import COLORS

        return [
            [
                Detection(
                    s.class_name,
                    (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
                    0.99,
                    color_logits=tuple(float(c == s.color) for c in COLORS),
                    extras={"pixel_color": s.color or COLORS[0]},
                )
                for s, box, mask in zip(scene.stickers, drawn.boxes, drawn.masks, strict=True)
                if mask.any()
            ]
            for scene, drawn in self._known
        ]


class ToldJudge(OracleJudge):
    """The judge's own answers, found before: each picture is looked at once for both of its specs."""

    def __init__(self, rows: Sequence[Sequence[Detection]]) -> None:
        self._rows = rows

    def detect(
        self, images: Sequence[Any], color_classes: Sequence[Sequence[str]]
    ) -> Sequence[Sequence[Detection]]:
        return self._rows


def wrong_spec(scene: Scene) -> dict[str, Any]:
    """The scene's spec with one thing changed: a class, a number, a colour (or two swapped), or a relation."""
    from blip3o.stickers import CLASSES, COLORS, RELATIONS
    from blip3o.stickers.rng import Stream

    stream = Stream("wrong spec", scene.split, scene.index)
    spec = json.loads(json.dumps(scene.spec()))
    include = spec["include"]
    shown = {s.class_name for s in scene.stickers}
    changes = ["class"]
    if any("color" in clause for clause in include):
        changes += ["color"] * 3
    if spec["tag"] == "counting":
        changes += ["count"] * 3
    if scene.relation:
        changes += ["relation"] * 3
    change = stream.choice(changes)
    if change == "class":
        clause = stream.choice(include)
        clause["class"] = stream.choice([c for c in CLASSES if c not in shown])
        if spec["tag"] == "counting":
            spec["exclude"][0]["class"] = clause["class"]
    elif change == "count":
        n = include[0]["count"] + stream.choice((-1, 1))
        include[0]["count"], spec["exclude"][0]["count"] = n, n + 1
    elif change == "relation":
        clause = next(c for c in include if "position" in c)
        clause["position"][0] = stream.choice([r for r in RELATIONS if r != scene.relation])
    else:
        colored = [c for c in include if "color" in c]
        if len(colored) == 2 and stream.uniform() < 0.5:
            colored[0]["color"], colored[1]["color"] = colored[1]["color"], colored[0]["color"]
        else:
            clause = stream.choice(colored)
            clause["color"] = stream.choice([c for c in COLORS if c != clause["color"]])
    return spec


def verdict_agreement(seen: Sequence[Any]) -> dict[str, Any]:
    """Share of equal verdicts over both specs of every scene, apart by the true verdict, and by tag.

    Args: seen: `blip3o.stickers.judge_eval.Seen` values.
    """
    from evals.plugins.lookup import find_task

    task = find_task("geneval")
    equal: dict[str, list[bool]] = {
        "verdict_agreement": [],
        "when_right": [],
        "when_wrong": [],
        "by_pixels": [],
    }
    by_tag: dict[str, list[bool]] = {}
    for make in (lambda scene: scene.spec(), wrong_spec):
        items = []
        for one in seen:
            spec = make(one.scene)
            sample = Sample(
                f"{one.scene.index}", one.scene.index, spec["tag"], spec["prompt"], spec
            )
            items.append(ScoreItem(sample, Output(sample.id, 0, 0)))
        truth = task.score(items, OracleJudge([(one.scene, one.drawn) for one in seen]))
        answer = task.score(
            items, ToldJudge([[to_detection(f) for f in one.found] for one in seen])
        )
        for item, true, said in zip(items, truth, answer, strict=True):
            is_equal = true.value == said.value
            equal["verdict_agreement"].append(is_equal)
            equal["when_right" if true.value else "when_wrong"].append(is_equal)
            by_pixels = said.details.get("pixel_color_correct")
            if by_pixels is not None:
                equal["by_pixels"].append(bool(true.value) == by_pixels)
            by_tag.setdefault(item.sample.group, []).append(is_equal)
    return {
        "verdict_agreement": _mean(equal["verdict_agreement"]),
        "verdict_agreement_when_true": _mean(equal["when_right"]),
        "verdict_agreement_when_false": _mean(equal["when_wrong"]),
        "verdict_agreement_by_pixels": _mean(equal["by_pixels"]),
        "verdicts": len(equal["verdict_agreement"]),
        "verdict_agreement_by_tag": {tag: _mean(v) for tag, v in sorted(by_tag.items())},
    }


def on_nano_pictures(folder: Path) -> dict[str, Any]:
    """Agreement of the weights in `folder` with the labels that come with the package, as reports read it.

    `..._by_tag` maps tags to figures, `..._ci95` are intervals over prompts; `bias` is the judge's rate of yes minus
    the labels'. Everything is weighted back to all pictures of the pool that the labelled ones were drawn from.
    """
    from evals.judging import agree

    found = agree(judge_name=f"stickers:{folder}")
    overall, tags = found["overall"], found["groups"]
    figures: dict[str, Any] = {
        "verdicts": overall["n"],
        "verdicts_by_tag": {t: a["n"] for t, a in tags.items()},
        "prompts": overall["prompts"],
    }
    for key, name in (("agreement", "verdict_agreement"), ("kappa", "kappa"), ("bias", "bias")):
        figures[name] = overall[key]["value"]
        figures[f"{name}_ci95"] = overall[key]["ci95"]
        figures[f"{name}_by_tag"] = {t: a[key]["value"] for t, a in tags.items()}
        figures[f"{name}_by_tag_ci95"] = {
            t: a[key]["ci95"] for t, a in tags.items() if a[key]["ci95"] is not None
        }
    sure = found["overall_sure"]
    return {
        **figures,
        "judge_rate": overall["judge_rate"],
        "label_rate": overall["label_rate"],
        "false_yes": overall["false_yes"],
        "false_no": overall["false_no"],
        "confusion": overall["confusion"],
        "unsure": found["unsure"],
        "verdict_agreement_sure": None if sure is None else sure["agreement"]["value"],
        "kappa_sure": None if sure is None else sure["kappa"]["value"],
        "verdict_agreement_by_pixels_by_tag": {
            t: v["with_labels"]["agreement"]["value"] for t, v in found["by_pixels"].items()
        },
        "readings_agree_by_tag": {
            t: v["with_judge"]["agreement"]["value"] for t, v in found["by_pixels"].items()
        },
        "labeller": found["labeller_note"],
        "labeller_with_itself": found["labeller"],
        "labels_sha256": found["labels_sha256"],
        "model_weights_sha256": found["model_weights_sha256"],
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def measure_all(folder: Path | None, n_scenes: int, settings: Sequence[str]) -> dict[str, Any]:
    """All figures of the weights in `folder` (None: the shipped ones)."""
    from blip3o.stickers.judge import FOLDER, StickerJudge
    from blip3o.stickers.judge_data import WearConfig
    from blip3o.stickers.judge_eval import false_alarms, look, measure
    from blip3o.stickers.judge_train import commit, hardware

    judge = StickerJudge.load(folder or FOLDER)
    figures: dict[str, Any] = {}
    if NANO_PICTURES in settings:
        figures[NANO_PICTURES] = on_nano_pictures(folder or FOLDER)
    for name in settings:
        if name == NANO_PICTURES:
            continue
        split, level, is_worn = SETTINGS[name]
        started = time.perf_counter()
        seen = list(look(judge, split, level, n_scenes, WearConfig() if is_worn else None))
        seconds = time.perf_counter() - started
        figures[name] = {
            **verdict_agreement(seen),
            **measure(seen),
            "pictures_per_second": round(n_scenes / seconds, 1),
        }
        print(
            name,
            {k: v for k, v in figures[name].items() if k != "per_class"},
            file=sys.stderr,
            flush=True,
        )
    if set(settings) != {NANO_PICTURES}:
        figures["false_alarms"] = false_alarms(judge)
    figures["measured"] = {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": shlex.join(["python", "-m", "evals.judges.stickers_accuracy", *sys.argv[1:]]),
        "commit": commit(),
        "hardware": hardware(),
        "weights_sha256": judge.digest,
    }
    return figures


def main(argv: Sequence[str] | None = None) -> None:
    from blip3o.stickers.judge_files import FOLDER, read_metadata, write_metadata

    parser = argparse.ArgumentParser(
        description="Measure the sticker judge on scenes whose content is known."
    )
    parser.add_argument(
        "--weights",
        type=Path,
        default=FOLDER,
        help="folder of the weights (default: the shipped ones)",
    )
    parser.add_argument(
        "--scenes", type=int, default=2000, help="scenes per setting (default 2000)"
    )
    parser.add_argument(
        "--settings", nargs="+", default=[*SETTINGS, NANO_PICTURES], choices=[*SETTINGS, NANO_PICTURES],
        help="default: all",
    )  # fmt: skip
    parser.add_argument("--write", action="store_true", help="store the figures beside the weights")
    args = parser.parse_args(argv)
    figures = measure_all(args.weights, args.scenes, args.settings)
    if args.write:
        metadata = read_metadata(args.weights)
        if args.settings == [NANO_PICTURES]:  # the figures on scenes stay: they are of the same weights
            figures = {**metadata.get("accuracy", {}), NANO_PICTURES: figures[NANO_PICTURES]}
        write_metadata(args.weights, {**metadata, "accuracy": figures})
    print(json.dumps(figures, indent=1))


def _mean(values: Sequence[bool]) -> float | None:
    return round(sum(values) / len(values), 4) if values else None


if __name__ == "__main__":
    main()
