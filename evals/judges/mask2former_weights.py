"""Where the detector's weights are, what they are called, and their digest; nothing heavy is imported.

`meta-swin-s`: the public checkpoint of the authors, which is not the one GenEval used. `official`: the weights of
mmdet that GenEval used, converted by `blip3o-eval convert-mmdet`. Anything else is named after its digest, and never
passes for one of the two.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evals.errors import MissingRequirementError, UsageError, shown
from evals.io.digests import file_digest
from evals.models.hub import local_snapshot

META = "meta-swin-s"
META_HUB_ID = "facebook/mask2former-swin-small-coco-instance"
OFFICIAL = "official"
OFFICIAL_FILE = "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco_20220504_001756-743b7d99.pth"
OFFICIAL_URL = (
    "https://download.openmmlab.com/mmdetection/v2.0/mask2former/"
    f"mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco/{OFFICIAL_FILE}"
)
RECORD = "conversion.json"
"""Written by `convert-mmdet` beside the weights: where they come from."""

NUM_CLASSES = 80
# Class names of Meta's checkpoint that differ from those of GenEval.
_ALIASES = {
    "motorbike": "motorcycle",
    "aeroplane": "airplane",
    "sofa": "couch",
    "pottedplant": "potted plant",
    "diningtable": "dining table",
    "tvmonitor": "tv",
    "mouse": "computer mouse",
    "remote": "tv remote",
    "keyboard": "computer keyboard",
}


@dataclass(frozen=True)
class DetectorWeights:
    """A folder with config.json and safetensors. `classes`: the network's classes by GenEval's names, in order."""

    folder: Path
    label: str
    digest: str
    classes: tuple[str, ...]
    source: str


def find_detector(spec: str, revision: str | None = None) -> DetectorWeights:
    """The weights of a label, a folder or a hub id ("" means `meta-swin-s`).

    Raises: MissingRequirementError with what to fetch; UsageError for something that holds no such weights.
    """
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return _read(path, _label_of_folder(path), str(path))
    if path.suffix in (".pth", ".pt", ".bin"):
        raise UsageError(
            f"{shown(spec)} is a pickle, which is not loaded here: `blip3o-eval convert-mmdet {spec} OUT` makes "
            "a folder of it, then --judge mask2former:OUT"
        )
    if spec == OFFICIAL:
        raise MissingRequirementError(
            f"judge 'mask2former:official' needs the weights of mmdet: fetch {OFFICIAL_URL} and run `blip3o-eval "
            f"convert-mmdet {OFFICIAL_FILE} official`; the same --judge then finds the folder 'official' here"
        )
    hub_id = META_HUB_ID if spec in ("", META) else spec
    if hub_id.startswith((".", "/", "~")) or hub_id.count("/") != 1:
        raise UsageError(
            f"detector {shown(spec)} is neither a folder nor a hub id: give mask2former:FOLDER, "
            f"mask2former:owner/name, or mask2former:{META}"
        )
    folder = local_snapshot(hub_id, revision)
    return _read(folder, META if hub_id == META_HUB_ID else None, hub_id)


def _label_of_folder(folder: Path) -> str | None:
    record = folder / RECORD
    if record.is_file():
        return str(_json(record).get("label", "")) or None
    cached = "models--" + META_HUB_ID.replace("/", "--")
    return META if cached in folder.resolve().parts else None


def _read(folder: Path, label: str | None, source: str) -> DetectorWeights:
    config_file = folder / "config.json"
    if not config_file.is_file():
        raise UsageError(f"{folder} has no config.json: it holds no Mask2Former weights")
    config = _json(config_file)
    if config.get("model_type") != "mask2former":
        raise UsageError(
            f"{config_file} is of a {config.get('model_type')!r} model, the judge needs 'mask2former'"
        )
    files = sorted(folder.glob("model*.safetensors"))
    if not files:
        raise MissingRequirementError(
            f"{folder} holds no model.safetensors (`hf download {source}` fetches it, or save the model as "
            "safetensors): pickled weights are not loaded"
        )
    classes = class_order(config.get("id2label"))
    # Of the weights and the order of the classes: a config written by another version is the same judge.
    total = hashlib.sha256("\n".join(classes).encode())
    for file in files:
        total.update(f"{file.name}\0{file_digest(file)}\n".encode())
    digest = total.hexdigest()
    record = folder / RECORD
    if record.is_file():
        _check_record(record, files)
    return DetectorWeights(folder, label or f"custom-{digest[:8]}", digest, classes, source)


def _check_record(record: Path, files: Sequence[Path]) -> None:
    """A label belongs to the very weights that were converted."""
    wanted = _json(record).get("weights_sha256")
    if [file_digest(file) for file in files] != [wanted]:
        raise UsageError(
            f"{record} is of other weights than {files[0].name} beside it: convert them again, or remove the record"
        )


def class_order(id2label: Any) -> tuple[str, ...]:
    """GenEval's name of each output of the class head.

    Generic names (LABEL_0, ...) mean COCO's order, which all published checkpoints have.
    Raises: UsageError unless the 80 classes are COCO's.
    """
    from blip3o.stickers import CLASSES  # GenEval's 80 names in COCO's order

    labels = id2label if isinstance(id2label, Mapping) else {}
    names = [str(labels.get(str(i), f"LABEL_{i}")) for i in range(NUM_CLASSES)]
    if names == [f"LABEL_{i}" for i in range(NUM_CLASSES)] and len(labels) in (0, NUM_CLASSES):
        return tuple(CLASSES)
    known = {name.replace(" ", ""): name for name in CLASSES}
    found = []
    for name in names:
        plain = name.strip().lower().replace("_", " ")
        plain = _ALIASES.get(plain.replace(" ", ""), plain)
        found.append(known.get(plain.replace(" ", ""), ""))
    if len(labels) != NUM_CLASSES or sorted(found) != sorted(CLASSES):
        strange = next((n for n, f in zip(names, found, strict=True) if not f), None)
        problem = f"{shown(strange)} is none of them"
        if len(labels) != NUM_CLASSES or strange is None:
            problem = f"it has {len(labels)} classes"
        raise UsageError(f"the detector must know COCO's 80 classes: {problem} (id2label of config.json)")
    return tuple(found)


def _json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): fetch it again") from None
    if not isinstance(value, dict):
        raise UsageError(f"{path} must hold a JSON object")
    return value
