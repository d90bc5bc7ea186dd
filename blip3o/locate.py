"""Where a model's files are: presets, folders and hub ids. Nothing is fetched."""

from __future__ import annotations

import os
from pathlib import Path

from blip3o.errors import WeightsError
from blip3o.presets import PRESETS, preset_folder, unknown_preset


def find_folder(source: str | Path, revision: str | None = None) -> Path:
    """Folder of a preset, path or hub id. Raises: WeightsError with the next step."""
    name = os.fspath(source)
    if not name:
        raise WeightsError("the model has no name; give a preset, a folder or a hub id (owner/name)")
    preset = PRESETS.get(name)
    if preset is not None and preset.bundled is not None:
        return preset_folder(name)
    hub_id = preset.hub_id if preset is not None else None
    folder = Path(name).expanduser()
    if hub_id is None and folder.is_dir():
        return folder
    if preset is not None and hub_id is None:
        raise WeightsError(f"the random model {name!r} has no files; save one with save_pretrained and name its folder")
    if hub_id is None:
        if isinstance(source, Path) or name.startswith((".", "/", "~")) or name.count("/") > 1:
            raise WeightsError(f"model folder {name} does not exist")
        if "/" not in name:
            raise unknown_preset(name)
        hub_id = name
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        at = f" --revision {revision}" if revision else ""
        raise WeightsError(
            f"model {hub_id!r} is not on this machine; `hf download {hub_id}{at}` fetches it where there is network"
        ) from None
    except HFValidationError as error:
        raise WeightsError(f"{hub_id!r} is no hub id: {' '.join(str(error).split())}") from None
