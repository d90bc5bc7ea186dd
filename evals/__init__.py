"""Harness: runs tasks on models, judges the outputs, keeps everything on disk, reports.

``evaluate(task=..., model=...)`` is the whole of it in Python; ``blip3o-eval run`` calls the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evals.runner import Run, evaluate

__all__ = ["Run", "evaluate"]


def __getattr__(name: str) -> Any:
    # Lazy, so that `import evals.errors` from the command line does not pay for the runner.
    if name in __all__:
        from evals import runner

        return getattr(runner, name)
    raise AttributeError(f"module 'evals' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
