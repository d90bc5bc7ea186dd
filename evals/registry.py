"""Registries of tasks, models, judges and metrics: names -> lazily imported objects.

An entry is either an object or a target ``"package.module:attribute"`` that is imported on first use,
so listing names imports nothing. A second entry under one name is an error that names both origins.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

from evals.errors import EvalError, unknown_name
from evals.plugins.checks import entry_problem

T = TypeVar("T")


class RegistryError(EvalError):
    """A clash, an entry after ``freeze``, or a target that cannot be imported."""


@dataclass
class _Entry:
    target: Any
    origin: str
    summary: str = ""
    is_hidden: bool = False
    error: str | None = None


class Registry(Generic[T]):
    """Named objects of one kind.

    ``registry.register("geneval", "tasks.generation.geneval:GenEval", origin="built-in")`` stores a
    target; ``registry.get("geneval")`` imports it. Entries that failed to load during discovery stay
    listed with their error and raise it when asked for. What a target turns out to be is checked when it
    is imported (``evals.plugins.checks``).
    """

    def __init__(
        self, kind: str, check: Callable[[Any], str | None] = lambda loaded: None
    ) -> None:
        """``check`` says what is wrong with an imported object, or None."""
        self.kind = kind
        self._check = check
        self._entries: dict[str, _Entry] = {}
        self._is_frozen = False

    def register(
        self,
        name: str,
        target: T | str,
        *,
        origin: str = "runtime",
        summary: str = "",
        is_hidden: bool = False,
    ) -> None:
        """Add an entry. Raises RegistryError if the name is taken or the registry frozen."""
        self._check_free(name, origin)
        if isinstance(target, str) and target.count(":") != 1:
            raise RegistryError(
                f"{self.kind} {name!r} ({origin}): target {target!r} is not 'package.module:attribute'"
            )
        self._entries[name] = _Entry(target, origin, summary, is_hidden)

    def register_broken(self, name: str, error: str, *, origin: str) -> None:
        """Remember a plug-in that could not be loaded, so that ``list`` can show why."""
        if name not in self._entries:
            self._entries[name] = _Entry(None, origin, error=error)

    def get(self, name: str) -> T:
        """The object; imports it if it is a target. Raises UnknownNameError or RegistryError."""
        entry = self._entry(name)
        if entry.error is not None:
            raise RegistryError(f"{self.kind} {name!r} ({entry.origin}) is broken: {entry.error}")
        if isinstance(entry.target, str):
            loaded = self._load(name, entry)
            problem = self._check(loaded)
            if problem is not None:
                raise RegistryError(f"{self.kind} {name!r} ({entry.origin}) {problem}")
            entry.target = loaded
        return entry.target

    def _load(self, name: str, entry: _Entry) -> Any:
        module_name, _, attribute = entry.target.partition(":")
        try:
            # Whatever a module prints while it is imported must not end up among the results on stdout.
            with contextlib.redirect_stdout(sys.stderr):
                value: Any = importlib.import_module(module_name)
                for part in attribute.split("."):
                    value = getattr(value, part)
        except (Exception, SystemExit) as error:  # a plug-in may raise anything, or try to exit
            problem = f"{type(error).__name__}: {error}"
            raise RegistryError(
                f"{self.kind} {name!r} ({entry.origin}) cannot be imported from {entry.target!r}: {problem}"
            ) from error
        return value

    def names(self, include_hidden: bool = False) -> list[str]:
        """Names in the order of registration; built-ins come first."""
        return [n for n, e in self._entries.items() if include_hidden or not e.is_hidden]

    def origin(self, name: str) -> str:
        """Where the entry comes from: "built-in" or the distribution of the plug-in."""
        return self._entry(name).origin

    def summary(self, name: str) -> str:
        """One line about the entry: given at registration, else the first of its docstring once it is
        imported. Imports nothing."""
        entry = self._entry(name)
        if entry.summary or isinstance(entry.target, str):
            return entry.summary
        lines = (inspect.getdoc(entry.target) or "").strip().splitlines()
        return lines[0] if lines else ""

    def error(self, name: str) -> str | None:
        """Why the entry cannot be used, or None."""
        return self._entry(name).error

    def mark_broken(self, name: str, error: str) -> None:
        """Keep the entry listed, with the reason why it cannot be used."""
        self._entry(name).error = error

    def freeze(self) -> None:
        """Refuse further entries."""
        self._is_frozen = True

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._entries)

    def _entry(self, name: str) -> _Entry:
        try:
            return self._entries[name]
        except KeyError:
            raise unknown_name(self.kind, name, self.names()) from None

    def _check_free(self, name: str, origin: str) -> None:
        if self._is_frozen:
            raise RegistryError(f"cannot add {self.kind} {name!r}: the registry is frozen")
        if name in self._entries:
            taken = self._entries[name].origin
            raise RegistryError(
                f"{self.kind} {name!r} of {origin} clashes with the one of {taken}; rename one of them"
            )


tasks: Registry[Any] = Registry("task", partial(entry_problem, "task"))
models: Registry[Any] = Registry("model", partial(entry_problem, "model"))
judges: Registry[Any] = Registry("judge", partial(entry_problem, "judge"))
metrics: Registry[Any] = Registry("metric", partial(entry_problem, "metric"))
