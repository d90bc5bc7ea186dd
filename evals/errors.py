"""Errors of the harness.

    EvalError                     exit 1: something failed while running
    +-- UsageError                exit 2: the request itself is wrong; nothing was started
    |   +-- UnknownNameError      a task, model, judge, metric, option or key that does not exist
    |   +-- ConfigError           a value that is not allowed, or settings that contradict each other
    |   +-- InputError            a file given by the user cannot be read; names file and line
    |   +-- ConfigMismatchError   a run folder made with another configuration; names the keys
    +-- MissingRequirementError   exit 2: a package, file or weight that has to be fetched first
    +-- StoreError                a run folder that cannot be read or written (read-only, full, damaged)
    |   +-- LockedError           another process works on the same shard
    +-- ModelError                a model could not be loaded or broke as a whole
    +-- JudgeError                the same for a judge
    +-- TooManyFailuresError      more samples failed than ``--max-errors`` allows

Every message is one line (or few) naming the value, what is allowed and the next step. The command
line prints it without a traceback; anything that is not an ``EvalError`` keeps its traceback.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable


class EvalError(Exception):
    """Base of all errors the harness raises on purpose."""

    exit_code = 1


class UsageError(EvalError):
    """The request is wrong; nothing was started."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not registered. Build it with :func:`unknown_name`."""


class ConfigError(UsageError):
    """A value outside what is allowed, or settings that contradict each other."""


class InputError(UsageError):
    """A file given by the user is malformed; the message starts with ``file:line``."""


class ConfigMismatchError(UsageError):
    """A run folder holds results of another configuration."""


class MissingRequirementError(EvalError):
    """A package, data file or weight is not on this machine; the message says how to get it."""

    exit_code = 2


class StoreError(EvalError):
    """A run folder cannot be read or written."""


class LockedError(StoreError):
    """Another process holds the lock of this run or shard."""


class ModelError(EvalError):
    """A model cannot be loaded, or fails as a whole."""


class JudgeError(EvalError):
    """A judge cannot be loaded, or fails as a whole."""


class TooManyFailuresError(EvalError):
    """The share of failed samples is larger than allowed."""


_SHOWN_CHARACTERS = 80


def shown(value: object) -> str:
    """The value as a message shows it: one line, and not the megabyte that somebody may have given."""
    short = reprlib.Repr()
    short.maxstring = short.maxlong = short.maxother = _SHOWN_CHARACTERS
    try:
        text = short.repr(value)
    except (ValueError, RecursionError):  # a number of thousands of digits
        return f"a {type(value).__name__}"
    limit = 2 * _SHOWN_CHARACTERS
    return text if len(text) <= limit else f"{text[:limit]}..."


def suggest(name: str, known: Iterable[str], limit: int = 3) -> str:
    """``" Did you mean: a, b?"`` for names close to ``name``, else a list of what is known."""
    names = list(dict.fromkeys(known))
    lowered = {n.lower(): n for n in names}
    close = difflib.get_close_matches(name[:200].lower(), list(lowered), n=limit, cutoff=0.6)
    if close:
        return f" Did you mean: {', '.join(lowered[c] for c in close)}?"
    return f" Known: {', '.join(sorted(names))}." if names else " None are registered."


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
    """``Unknown task 'genval'. Did you mean: geneval?``"""
    return UnknownNameError(f"Unknown {kind} {shown(name)}.{suggest(name, known)}")
