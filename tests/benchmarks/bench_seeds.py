"""How often the intervals of `evals.stats.seeds` hold what they promise, by simulated sweeps.

    python tests/benchmarks/bench_seeds.py            one cell
    python tests/benchmarks/bench_seeds.py studies    whole studies: false alarms after Holm's correction, coverage

Scores are the sum of a training's part, a prompt's part and a part of both; the true mean is zero. The margins are
those of `over_seeds` with Student's t in place of the bootstrap over prompts, which is much slower and differs little.
"""

from __future__ import annotations

import math
import sys

import numpy as np

from evals.stats import holm
from evals.stats.clusters import t_quantile
from evals.stats.seeds import _p_value, welch

PROMPTS, REPEATS, SD_PROMPT, SD_JOINT = 160, 4_000, 0.3, 0.3


def main() -> None:
    rng = np.random.default_rng(0)
    for seeds in (2, 3, 5):
        for sd in (0.0, 0.03, 0.1):
            scores = (
                rng.normal(0, sd, (REPEATS, seeds, 1))
                + rng.normal(0, SD_PROMPT, (REPEATS, 1, PROMPTS))
                + rng.normal(0, SD_JOINT, (REPEATS, seeds, PROMPTS))
            )
            value = scores.mean((1, 2))
            over_prompts = scores.mean(1).std(1, ddof=1) / np.sqrt(PROMPTS) * t_quantile(0.95, PROMPTS - 1)
            over_seeds = scores.mean(2).std(1, ddof=1) / np.sqrt(seeds) * t_quantile(0.95, seeds - 1)
            margin = np.hypot(over_prompts, over_seeds)
            held = (np.abs(value) <= margin).mean()
            print(f"{seeds} seeds, sd {sd:g}: holds in {100 * held:.1f} %, width {2 * margin.mean():.2f}")


CONTRASTS = {  # of six designs, (target, objective) x schedule: clip flow, clip mse, vae flow
    "target": (-0.5, -0.5, 0, 0, 0.5, 0.5),
    "objective": (-0.5, -0.5, 0.5, 0.5, 0, 0),
    "schedule": (-1 / 3, 1 / 3, -1 / 3, 1 / 3, -1 / 3, 1 / 3),
}


def studies(repeats: int = 500, metrics: int = 4) -> None:
    """Studies of six designs without an effect: how many claim one anywhere; and how often an interval holds zero.

    `welch`: error over seeds from each design's own spread, as effects have it; `paired`: from the differences of the
    seeds alone, n - 1 degrees of freedom, as differences of cells have it. `unequal`: one design's trainings vary
    five times as much as the others'.
    """
    rng = np.random.default_rng(1)
    for seeds, sds in ((3, (0.03,) * 6), (5, (0.03,) * 6), (3, (0.1, *(0.02,) * 5)), (3, (0.0,) * 6)):
        alarms, held = {"welch": 0, "paired": 0}, {"welch": 0, "paired": 0}
        for _ in range(repeats):
            p_values: dict[str, list[float]] = {"welch": [], "paired": []}
            for _ in range(metrics):
                scores = (
                    rng.normal(0, 1, (6, seeds, 1)) * np.array(sds)[:, None, None]
                    + rng.normal(0, SD_PROMPT, (1, 1, PROMPTS))
                    + rng.normal(0, SD_JOINT, (6, seeds, PROMPTS))
                )
                for weights in CONTRASTS.values():
                    used = [i for i, w in enumerate(weights) if w]
                    contrast = np.tensordot(weights, scores, 1)  # (seeds, prompts)
                    value, by_seed = contrast.mean(), contrast.mean(1)
                    prompts = contrast.mean(0).std(ddof=1) / math.sqrt(PROMPTS)
                    errors = {
                        "welch": welch([weights[i] for i in used], [scores[i].mean(1) for i in used]),
                        "paired": (by_seed.std(ddof=1) / math.sqrt(seeds), seeds - 1),
                    }
                    for kind, error in errors.items():
                        p = _p_value(value, [(prompts, PROMPTS - 1), error])
                        p_values[kind].append(p)
                        held[kind] += p >= 0.05
            for kind, found in p_values.items():
                alarms[kind] += min(holm(found)) < 0.05
        n = repeats * metrics * len(CONTRASTS)
        told = "; ".join(
            f"{kind}: {100 * alarms[kind] / repeats:.1f} % of studies with a false alarm, "
            f"{100 * held[kind] / n:.1f} % of intervals hold" for kind in alarms
        )  # fmt: skip
        print(f"{seeds} seeds, sd {sds[0]:g} and {sds[1]:g}: {told}", flush=True)


if __name__ == "__main__":
    studies() if "studies" in sys.argv[1:] else main()
