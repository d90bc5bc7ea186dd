"""What a plug-in has to be, checked before it is used: the entry, what it makes, the version it was written for.

A plug-in may be half installed, older than this package, or of another kind than its entry point
says. All of that is found when it is listed or asked for, named in one line, and kept from the rest.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from evals.api import API_VERSION, Identity

API_NAME = "BLIP3O_EVAL_API"
"""A module may say which version of ``evals.api`` its plug-ins were written for: ``BLIP3O_EVAL_API = 1``."""

_MEMBERS = {
    "task": (
        "name", "version", "kind", "groups", "num_images", "judges", "card",
        "samples", "digest", "score", "metrics",
    ),
    "model": ("identity", "load", "close"),
    "judge": ("identity", "load", "close", "accuracy"),
    "metric": ("name", "unit", "higher_is_better", "compute"),
}  # fmt: skip
_METHODS = ("samples", "digest", "score", "metrics", "load", "close", "accuracy", "compute")
_CALLED_WITH: dict[str, tuple[Any, ...]] = {
    "task": (),
    "model": ("spec", "options"),
    "judge": ("spec", "options"),
    "metric": ("spec",),
}


def entry_problem(kind: str, entry: Any) -> str | None:
    """Why the object behind an entry point cannot be a plug-in of this kind; None if it can.

    Nothing is created: a model may be costly. Tasks are cheap by contract and are checked whole by
    ``task_problem``.
    """
    module = sys.modules.get(getattr(entry, "__module__", None) or "")
    version = getattr(module, API_NAME, API_VERSION)
    if version != API_VERSION:
        return (
            f"was written for version {version!r} of evals.api, this is version {API_VERSION}: install the "
            "release of the plug-in that goes with it"
        )
    arguments = _CALLED_WITH[kind]
    if not callable(entry):
        return f"is {_a(entry)}, not a class or function"
    try:
        inspect.signature(entry).bind(*arguments)
    except TypeError:
        return f"cannot be called with ({', '.join(arguments)})"
    except ValueError:  # written in C, without a signature
        return None
    return None


def task_problem(factory: Callable[[], Any]) -> str | None:
    """Why a task cannot be used, by creating it; None if it can. Raises what its constructor raises."""
    return protocol_problem("task", factory())


def protocol_problem(kind: str, made: Any) -> str | None:
    """What keeps an object from being a task, model, judge or metric; None if nothing does."""
    missing = [name for name in _MEMBERS[kind] if not hasattr(made, name)]
    if missing:
        return f"made {_a(made)} that is no {kind}: it has no {', '.join(missing)}"
    for name in _METHODS:
        if name in _MEMBERS[kind] and not callable(getattr(made, name)):
            return f"made {_a(made)} that is no {kind}: its {name} is not a method"
    if kind in ("model", "judge") and not isinstance(made.identity, Identity):
        return f"made {_a(made)} whose identity is {_a(made.identity)}, not an evals.api.Identity"
    if kind == "model" and not (hasattr(made, "generate") or hasattr(made, "answer")):
        return f"made {_a(made)} that is no model: it has neither generate nor answer"
    if kind == "task" and made.kind not in ("generation", "understanding"):
        return f"is of kind {made.kind!r}: must be 'generation' or 'understanding'"
    return None


def _a(thing: Any) -> str:
    return f"an object of type {type(thing).__name__}"
