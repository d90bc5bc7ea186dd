"""A name -> lmms-eval's own task objects, with the documents that lie on this machine.

Its loader tries five times with two seconds between, and fetches from the hub; ours tries once, and what is missing
is said in one line with the command that gets it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from evals.errors import InputError, MissingRequirementError, UsageError
from evals.lmms import catalog, local_data, package
from evals.phases.calls import one_line

Form = Literal["simple", "chat"]


@dataclass(frozen=True)
class Loaded:
    """Task objects of a name.

    ``tasks``: name -> object, one unless the name is a group or tag; ``tree``: the groups around them, as
    ``load_task_or_group`` returns them; ``files``: the local files that were read, by task.
    """

    name: str
    version: str
    tasks: Mapping[str, Any]
    tree: Mapping[Any, Any]
    files: Mapping[str, tuple[Path, ...]]


def load(
    name: str,
    data: Path | None = None,
    form: Form = "simple",
    model_name: str = "blip3o",
    include: str | None = None,
    is_shared: bool = False,
) -> Loaded:
    """Load a task, group or tag.

    Args: data: file or folder with its documents (``evals.lmms.local_data``); None: the cache of the hub.
    form: prompts as text with pictures, or as chat messages. model_name: whose block of prompts is taken from
    the task's ``lmms_eval_specific_kwargs``. include: a folder with further YAML files. is_shared: ``data`` is a
    folder that need not hold this task's documents.
    Raises: MissingRequirementError for a package, key or data set that is not here; UnknownNameError; InputError.
    """
    version = package.check_installed(f"task 'lmms:{name}'")
    index = {**catalog.index(), **(catalog.index(include) if include else {})}
    if name not in index:
        catalog.find(name)  # raises, with a suggestion
    module = package.load("lmms_eval.tasks")
    files: dict[str, tuple[Path, ...]] = {}

    class Manager(module.TaskManager):  # type: ignore[name-defined]  # of a module loaded by name
        def initialize_tasks(self, *_: Any, **__: Any) -> Any:
            return index

        def _get_config(self, task: str) -> Any:
            config = super()._get_config(task)
            if index[task]["type"] != "task" or not isinstance(config.get("task"), str):
                return config
            found = data and local_data.override(config, data, task, is_shared)
            if not found:
                return {**config, "dataset_kwargs": _without_login(config.get("dataset_kwargs"))}
            files[task] = found.files
            return {**config, **found.keys}

    with package.quietly(), _one_attempt():
        manager = Manager("ERROR", model_name=model_name)
        # A helper of one task may be called `utils` as that of another is.
        sys.modules.pop("utils", None)
        try:
            tree = manager.load_task_or_group(name, form)
        except (InputError, MissingRequirementError, UsageError):
            raise
        except (Exception, SystemExit) as error:
            raise _explained(name, error, data) from error
    tasks = dict(_leaves(tree))
    for task in tasks.values():
        if task.get_config("num_fewshot") is None:
            task.set_config(key="num_fewshot", value=0)
        task.set_fewshot_seed(seed=1234)  # as its evaluator does
        task.args = None
    return Loaded(name, version, tasks, tree, files)


def check(name: str) -> str | None:
    """Why a task's YAML file and functions do not load, in one line; None if they do. Reads no documents."""
    entry = catalog.find(name)
    if not entry.path:
        return None
    utils = package.load("lmms_eval.utils")
    sys.modules.pop("utils", None)
    try:
        with package.quietly():
            utils.load_yaml_config(entry.path, mode="full")
    except (Exception, SystemExit) as error:
        return reason(error)
    return None


def reason(error: BaseException) -> str:
    """The innermost cause that says something, in one line."""
    while isinstance(error, ImportError) and error.__cause__ is not None:
        error = error.__cause__
    last = getattr(error, "last_attempt", None)  # tenacity's RetryError hides the reason
    if last is not None and last.exception() is not None:
        error = last.exception()
    return one_line(error, limit=160)


def _explained(name: str, error: BaseException, data: Path | None) -> Exception:
    text = reason(error)
    offline = ("offline", "connection", "cannot find", "couldn't reach", "not cached", "doesn't exist")
    if data is None and any(word in text.lower() for word in offline):
        entry = catalog.entries().get(name)
        where = entry.dataset if entry and entry.dataset else "its data set"
        return MissingRequirementError(
            f"task 'lmms:{name}' needs {where}, which is not on this machine: `hf download {where} --repo-type dataset "
            f"--local-dir DATA/{name}`, then --data DATA/{name}"
        )
    if isinstance(error, ModuleNotFoundError) or "No module named" in text:
        return MissingRequirementError(
            f"task 'lmms:{name}' needs a package that lmms-eval does not bring: {text}"
        )
    return MissingRequirementError(f"task 'lmms:{name}' does not load in lmms-eval: {text}")


def _without_login(kwargs: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """``token: True`` makes the hub's client ask for a login, also for data in its cache."""
    return None if kwargs is None else {k: v for k, v in kwargs.items() if k != "token"}


def _leaves(tree: Mapping[Any, Any]) -> Iterator[tuple[str, Any]]:
    for name, inner in tree.items():
        if isinstance(inner, Mapping) and not hasattr(inner, "process_results"):
            yield from _leaves(inner)
        else:
            yield str(name), inner


@contextlib.contextmanager
def _one_attempt() -> Iterator[None]:
    """``ConfigurableTask.download`` without its retries, which take 8 s to say that there is no network."""
    import tenacity

    retry = package.load("lmms_eval.api.task").ConfigurableTask.download.retry
    before = retry.stop, retry.reraise
    retry.stop, retry.reraise = tenacity.stop_after_attempt(1), True
    try:
        yield
    finally:
        retry.stop, retry.reraise = before
