"""Whether lmms-eval is installed, and importing it late, quietly and off the network."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import os
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from evals.errors import MissingRequirementError

INSTALL = 'pip install "blip3o-eval[understanding]"'
_OFFLINE = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")


def version() -> str | None:
    """The installed version, or None. Imports nothing of it."""
    try:
        return metadata.version("lmms-eval")
    except metadata.PackageNotFoundError:
        return None


def check_installed(what: str) -> str:
    """The installed version. Raises MissingRequirementError, with the pip command, for ``what`` needs it."""
    found = version()
    if found is None or importlib.util.find_spec("lmms_eval") is None:
        raise MissingRequirementError(f"{what} needs lmms-eval: {INSTALL}")
    if not found.startswith("0.7."):
        raise MissingRequirementError(
            f"{what} needs lmms-eval 0.7 (0.7.3 or newer), found {found}: {INSTALL}"
        )
    return found


def folder() -> Path:
    """Where its files lie. Raises MissingRequirementError."""
    check_installed("the list of lmms-eval's tasks")
    spec = importlib.util.find_spec("lmms_eval")
    assert spec is not None and spec.submodule_search_locations
    return Path(next(iter(spec.submodule_search_locations)))


def load(module: str) -> Any:
    """Import one of its modules: off the network, its log on stderr and errors only.

    It writes its log to stdout, where our results go, and several tasks read HF_HOME at import.
    """
    stay_offline()
    if "lmms_eval" not in sys.modules:
        check_installed(f"module {module}")
    is_first = "lmms_eval.models" not in sys.modules
    with quietly():
        loaded = importlib.import_module(module)
    if is_first and "loguru" in sys.modules:
        from loguru import logger

        logger.remove()
        logger.add(sys.stderr, level="ERROR", format="lmms-eval: {message}")
    return loaded


def stay_offline() -> None:
    """Nothing is fetched unless the user has said so (HF_HUB_OFFLINE=0 in the environment)."""
    os.environ.setdefault("HF_HOME", str(Path("~/.cache/huggingface").expanduser()))
    for name in _OFFLINE:
        os.environ.setdefault(name, "1")
    if os.environ[_OFFLINE[0]].strip().lower() in ("0", "false", "no", ""):
        return
    constants = sys.modules.get("huggingface_hub.constants")
    if constants is not None:  # imported before: it has read the environment already
        constants.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    config = sys.modules.get("datasets.config")
    if config is not None:
        config.HF_HUB_OFFLINE = config.HF_DATASETS_OFFLINE = True  # type: ignore[attr-defined]


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """What it prints and its progress bars stay off stdout, and off stderr unless something fails."""
    noise = io.StringIO()
    with contextlib.redirect_stdout(noise), contextlib.redirect_stderr(noise):
        yield
