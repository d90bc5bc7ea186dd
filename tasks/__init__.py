"""Benchmark plug-ins of blip3o-eval: understanding and generation tasks, found by `evals.discovery`."""

from __future__ import annotations

TASKS = {
    "geneval": (
        "tasks.generation.geneval:GenEval",
        "553 prompts about objects, counts, colours and positions, judged by a detector",
    ),
}
"""Name -> (where the class lies, one line about it); nothing is imported until it is asked for."""
