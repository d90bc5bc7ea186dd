"""From a hub id to a folder on this machine; what is missing is said at once."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from evals.errors import MissingRequirementError, UsageError

_ANSWER_WITHIN_S = 3.0
# Never code, never pickles.
_ALLOWED = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja")


def local_snapshot(
    hub_id: str, revision: str | None, wanted: Sequence[str] = _ALLOWED
) -> Path:
    """The folder of a hub id: from the local cache, else its ``wanted`` files, if the hub answers.

    Raises: MissingRequirementError with the command that fetches it, within seconds when there is no
    network.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
    )

    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        pass
    except HFValidationError as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{hub_id!r} is no hub id ({reason}): give owner/name or a folder"
        ) from None
    at_revision = f" --revision {revision}" if revision else ""
    fetch = (
        f"`hf download {hub_id}{at_revision}` fetches it where there is network; or give a folder"
    )
    if problem := hub_problem():
        raise MissingRequirementError(f"model {hub_id!r} is not on this machine, and {problem}: {fetch}")
    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(wanted)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise MissingRequirementError(
            f"model {hub_id!r} could not be fetched ({reason}): {fetch}"
        ) from None


def hub_problem() -> str | None:
    """Why the hub cannot be asked, as the end of a sentence; None if it answers. Takes 3 seconds at most."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    host = urlsplit(constants.ENDPOINT).hostname or constants.ENDPOINT
    port = urlsplit(constants.ENDPOINT).port or 443
    return None if _answers(host, port) else f"{host} does not answer"


def _answers(host: str, port: int) -> bool:
    """Whether a connection can be made; a name server that hangs counts as no."""
    if any(
        os.environ.get(name) for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    ):
        return True  # the proxy knows the way; this machine need not
    reached = threading.Event()

    def connect() -> None:
        try:
            socket.create_connection((host, port), timeout=_ANSWER_WITHIN_S).close()
        except OSError:
            return
        reached.set()

    attempt = threading.Thread(target=connect, daemon=True)
    attempt.start()
    attempt.join(_ANSWER_WITHIN_S)
    return reached.is_set()
