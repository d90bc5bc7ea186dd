"""Networks of transformers as judges: from a name to a folder, and from the folder to the network, or one clear line.

Weights come as safetensors only, from a folder or the hub's cache; nothing is fetched without being asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from evals.api import Identity
from evals.errors import JudgeError, MissingRequirementError, UsageError, shown
from evals.io.digests import folder_digest

_DIGESTED = (".safetensors", ".json", ".txt")
T = TypeVar("T")


@dataclass(frozen=True)
class Weights:
    """A folder of weights. ``label``: the folder's name or the hub id; ``is_folder``: the user named a folder."""

    folder: Path
    label: str
    is_folder: bool

    def digest(self) -> str:
        """sha256 of weights, configurations and vocabularies."""
        return folder_digest(self.folder, _DIGESTED)


def find_weights(name: str, revision: str | None = None, wanted: Sequence[str] | None = None) -> Weights:
    """The weights that ``FOLDER`` or ``owner/name`` stands for.

    Args: wanted: patterns of the files to fetch from the hub; default the usual ones, never pickles.
    Raises: UsageError for a name that is neither, or a revision of a folder; MissingRequirementError for weights
    that are not on this machine.
    """
    from evals.models.hub import local_snapshot

    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise UsageError(f"judge folder {name} has no revisions, got {shown(revision)}")
        return Weights(folder, folder.resolve().name, True)
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise UsageError(f"judge folder {shown(name)} does not exist: give a folder or a hub id")
    return Weights(local_snapshot(name, revision, *([wanted] if wanted else [])), name, False)


def refuse_pickles(weights: Weights) -> None:
    """Raises MissingRequirementError for a folder without a .safetensors file."""
    if not any(weights.folder.glob("*.safetensors")):
        raise MissingRequirementError(
            f"judge folder {weights.folder} has no .safetensors file: other formats can run code and are not read"
        )


def load_network(
    judge: str, folder: Path, network: Any, *parts: Callable[..., Any], **options: Any
) -> tuple[Any, ...]:
    """``network.from_pretrained`` of a folder, then what each of ``parts`` (tokenizer, processor) reads from it.

    Raises: JudgeError that names the judge when they cannot be read, or when weights are missing.
    """
    from safetensors import SafetensorError

    try:
        model, report = network.from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, local_files_only=True, **options
        )
        others = [part(folder, local_files_only=True) for part in parts]
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        line = " ".join(str(error).split())[:200]
        raise JudgeError(f"judge {judge!r} cannot be loaded from {folder}: {line}") from error
    refuse_missing(judge, folder, report["missing_keys"])
    return (model.eval(), *others)


class PretrainedJudge:
    """A network of transformers with its tokenizer and image processor, by a judge's name; built on first use."""

    network: ClassVar[str]
    processor: ClassVar[str]

    def __init__(
        self, weights: Weights, name: str, device: str, batch_size: int, settings: Mapping[str, Any] | None = None
    ) -> None:
        """``settings``: of the judge's identity; ``dtype`` among them, float32 without."""
        self._weights, self._wanted_device = weights, device
        self._model: Any = None
        self._tokenizer: Any = None
        self._processor: Any = None
        self.identity = Identity(
            name=name,
            version="1",
            digest=weights.digest(),
            domain="photos",
            settings=settings or {},
            batch_size=batch_size,
        )

    def load(self) -> None:
        """Build the network. Raises JudgeError for weights that do not fit."""
        import torch
        import transformers

        from evals.models.devices import resolve_device

        self._device = resolve_device(self._wanted_device)
        model, self._tokenizer, self._processor = load_network(
            self.identity.name,
            self._weights.folder,
            getattr(transformers, self.network),
            tokenizer_of,
            getattr(transformers, self.processor).from_pretrained,
            dtype=getattr(torch, self.identity.settings.get("dtype", "float32")),
        )
        self._model = model.to(self._device)

    def close(self) -> None:
        self._model = self._tokenizer = self._processor = None

    def accuracy(self) -> Mapping[str, Any]:
        """Nobody has published how often such a judge is right."""
        return {}


def tokenizer_of(folder: Path, **options: Any) -> Any:
    """The tokenizer of a folder, never one with code of its own."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)


def refuse_missing(judge: str, folder: Path, missing: Sequence[str] | set[str]) -> None:
    """Raises JudgeError when a network lacks weights."""
    if missing:
        raise JudgeError(
            f"judge {judge!r}: {folder} lacks {len(missing)} weights, the first is {min(missing)}"
        )


def read_arguments(extra: Mapping[str, Any], kind: type[T], most: int = 100) -> T:
    """``judge.args`` as a dataclass of texts and of whole numbers from 1 to ``most``.

    Raises: UsageError for an unknown name, another type, or a dtype that is none of float32, float16, bfloat16.
    """
    from dataclasses import fields

    from evals.errors import suggest

    known = {f.name: int if "int" in str(f.type) else str for f in fields(kind)}  # type: ignore[arg-type]
    for key, value in extra.items():
        if key not in known:
            raise UsageError(f"unknown key {shown(f'judge.args.{key}')}.{suggest(key, known)}")
        is_outside = isinstance(value, int) and not 1 <= value <= most
        if type(value) is not known[key] or is_outside:
            wanted = f"a whole number from 1 to {most}" if known[key] is int else "a text"
            raise UsageError(f"judge.args.{key} = {shown(value)}: give {wanted}")
    dtype = extra.get("dtype")
    if dtype is not None and dtype not in DTYPES:
        raise UsageError(f"judge.args.dtype = {shown(dtype)}: give one of {', '.join(DTYPES)}")
    return kind(**extra)


DTYPES = ("float32", "float16", "bfloat16")


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """``items`` in parts of at most ``size``."""
    return (items[start : start + size] for start in range(0, len(items), size))
