"""How varied the pictures of one prompt are, design by design, for the results of a sweep.

    python tests/benchmarks/diversity_of_sweep.py SWEEP [--prompts 60] [--num-images 4]

Each finished point draws `--num-images` pictures of `--prompts` GenEval prompts (a run folder under SWEEP/diversity;
the same command goes on) and is judged. Distances between pictures of one prompt, by the features of `fid_stickers`,
are divided by those between as many real scenes of the same prompts: 1 is as varied as the world, 0 the same picture
again and again. Wrong pictures are varied, too, so pairs of right pictures stand beside all pairs. SWEEP/diversity.json
is what `sweep report --results` takes along. About a minute of one core a point.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from nano_pictures import TAGS, Features, of_run, real, specs
from quality_of_nano import spread

from evals.io.files import write_atomically
from evals.runner import evaluate
from evals.sweeps.folder import SweepFolder
from reports.sweep_export import DIVERSITY


def of_point(run: Path, features: Features, per_tag: int, num_images: int) -> dict[str, float | int | None]:
    """Ratios of mean distances, of all pairs and of right pairs; and how many prompts had two right pictures."""
    known, parts = specs(), {"all": ([], []), "right": ([], [])}
    for tag in TAGS:
        for group in of_run(run, tag, per_tag, num_images):
            scenes = [real(known[group[0].sample_id], tag, group[0].sample_id, k) for k in range(len(group))]
            found = features([one.image for one in group] + scenes)
            own, other = found[: len(group)], found[len(group) :]
            right = [i for i, one in enumerate(group) if one.value == 1]
            for kind, chosen in (("all", list(range(len(group)))), ("right", right)):
                if len(chosen) > 1:
                    parts[kind][0].append(spread(own[chosen]))
                    parts[kind][1].append(spread(other[: len(chosen)]))
    ratios = {kind: float(np.mean(a) / np.mean(b)) if a else None for kind, (a, b) in parts.items()}
    return {**ratios, "prompts": len(parts["all"][0]), "right_prompts": len(parts["right"][0])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--num-images", type=int, default=4)
    options = parser.parse_args()
    folder, features = SweepFolder(options.sweep), Features()
    found: dict[str, dict[str, float | int | None]] = {}
    for point in folder.point_ids():
        if folder.state(point).status != "done":
            continue
        one = folder.point(point)
        export = folder.stage_folder(one.stages[-1]) / "export"
        run = options.sweep / "diversity" / point
        evaluate(
            "geneval", f"blip3o:{export}", output=run, judge="stickers", seed=one.seed, limit=options.prompts,
            num_images=options.num_images, report=False, tracking__enabled=False, quiet=True,
        )  # fmt: skip
        found[point] = of_point(run, features, options.prompts, options.num_images)
        print(point, found[point], flush=True)
    about = {"prompts": options.prompts, "num_images": options.num_images, "points": found}
    write_atomically(options.sweep / DIVERSITY, (json.dumps(about, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
