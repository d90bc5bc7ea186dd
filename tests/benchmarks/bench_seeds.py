"""How often the intervals of `evals.stats.seeds` hold what they promise, by simulated sweeps.

    python tests/benchmarks/bench_seeds.py

Scores are the sum of a training's part, a prompt's part and a part of both; the true mean is zero. The margins are
those of `over_seeds` with Student's t in place of the bootstrap over prompts, which is much slower and differs little.
"""

from __future__ import annotations

import numpy as np

from evals.stats.clusters import t_quantile

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


if __name__ == "__main__":
    main()
