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


CASES = (  # seeds, sd between trainings of the first design and of the others, effect of the target on one figure
    (3, 0.03, 0.03, 0.0), (5, 0.03, 0.03, 0.0), (3, 0.1, 0.02, 0.0), (3, 0.0, 0.0, 0.0),
    (3, 0.03, 0.03, 0.05), (3, 0.03, 0.03, 0.1), (3, 0.03, 0.03, 0.2), (5, 0.03, 0.03, 0.05), (5, 0.03, 0.03, 0.1),
)  # fmt: skip


def studies(repeats: int = 300, metrics: int = 4) -> None:
    """Studies of six designs: how many claim an effect after Holm's correction over twelve tests.

    Without an effect, a claim anywhere is a false alarm; with one, that very effect has to be claimed. `welch`: error
    over seeds from each design's own spread, as effects have it; `paired`: from the differences of the seeds alone,
    n - 1 degrees of freedom, as differences of cells have it.
    """
    rng = np.random.default_rng(1)
    for seeds, first, others, effect in CASES:
        sds = np.array([first, *(others,) * 5])[:, None, None]
        claimed, held = {"welch": 0, "paired": 0}, {"welch": 0, "paired": 0}
        for _ in range(repeats):
            p_values: dict[str, list[float]] = {"welch": [], "paired": []}
            for metric in range(metrics):
                scores = (
                    rng.normal(0, 1, (6, seeds, 1)) * sds
                    + rng.normal(0, SD_PROMPT, (1, 1, PROMPTS))
                    + rng.normal(0, SD_JOINT, (6, seeds, PROMPTS))
                )
                if metric == 0:
                    scores[4:] -= effect
                for axis, weights in CONTRASTS.items():
                    for kind, (p, is_held) in _tests(scores, weights, -effect * (metric == 0 and axis == "target")):
                        p_values[kind].append(p)
                        held[kind] += is_held
            for kind, found in p_values.items():
                corrected = holm(found)
                claimed[kind] += (corrected[0] if effect else min(corrected)) < 0.05
        n = repeats * metrics * len(CONTRASTS)
        told = "; ".join(
            f"{kind}: claimed by {100 * claimed[kind] / repeats:.1f} %, {100 * held[kind] / n:.1f} % of intervals hold"
            for kind in claimed
        )
        print(f"{seeds} seeds, sd {first:g} and {others:g}, effect {effect:g}: {told}", flush=True)


def _tests(scores: np.ndarray, weights: tuple[float, ...], truth: float) -> list[tuple[str, tuple[float, bool]]]:
    """(kind, (p for "no effect", whether the interval holds the truth)) of a contrast of (designs, seeds, prompts)."""
    used = [i for i, w in enumerate(weights) if w]
    contrast = np.tensordot(weights, scores, 1)  # (seeds, prompts)
    value, by_seed = float(contrast.mean()), contrast.mean(1)
    prompts = (contrast.mean(0).std(ddof=1) / math.sqrt(PROMPTS), PROMPTS - 1)
    errors = {
        "welch": welch([weights[i] for i in used], [scores[i].mean(1) for i in used]),
        "paired": (float(by_seed.std(ddof=1)) / math.sqrt(len(by_seed)), len(by_seed) - 1),
    }
    return [
        (kind, (_p_value(value, [prompts, error]), _p_value(value - truth, [prompts, error]) >= 0.05))
        for kind, error in errors.items()
    ]


if __name__ == "__main__":
    studies() if "studies" in sys.argv[1:] else main()
