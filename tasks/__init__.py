"""Benchmark plug-ins of blip3o-eval: understanding and generation tasks, found by `evals.discovery`."""
