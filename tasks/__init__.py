"""Benchmark plug-ins of blip3o-eval: understanding and generation tasks, found by `evals.discovery`."""

from __future__ import annotations

TASKS = {
    "geneval": (
        "tasks.generation.geneval:GenEval",
        "553 prompts about objects, counts, colours and positions, judged by a detector",
    ),
    "dpg": (
        "tasks.generation.dpg:Dpg",
        "1,065 dense prompts, a graph of questions about each, judged by a VQA model",
    ),
}
"""Name -> (where the class lies, one line about it); nothing is imported until it is asked for."""
