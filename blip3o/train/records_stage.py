"""Training of a BLIP3-o on records: captions -> pictures, pictures -> themselves, conversations -> answers.

Reading workers turn raw records into tensors (:class:`Encoder`), so that a record that is damaged or too long is
counted as a bad one; the stage then computes the losses of the recipe.

Dimension letters: B batch, L tokens, S picture side, P patches of all shown pictures.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from blip3o.backbone import PictureInputs
from blip3o.data.loader import LoaderConfig, RecordLoader
from blip3o.data.mixture import Ingredient
from blip3o.data.records import PLACEHOLDER, InstructionRecord, RawRecord, Reading
from blip3o.data.target_cache import cached_tensors
from blip3o.errors import ConfigError, DataError
from blip3o.inputs import InputBuilder, Patches
from blip3o.prompts import (
    ASSISTANT,
    IMAGE_PAD,
    RECONSTRUCT,
    TURN_END,
    Prompts,
    text_mark,
    user_turn,
)
from blip3o.train.data_spec import DataKind
from blip3o.train.edit_data import vision_block
from blip3o.train.features import unusual_scale
from blip3o.train.loaders import Loaders
from blip3o.train.phases import phase
from blip3o.train.recipe import StageSpec
from blip3o.unified import Blip3oModel
from blip3o.vision.preprocess import Preprocess, fit_square

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Encoded:
    """A record as numbers. ``labels``: ids to predict, -100 elsewhere; None where a picture is to be drawn, and then
    ``target`` (3, S, S) is that picture as the target encoder takes it, or ``cached`` holds what frozen parts made of
    it: features (C, h, w) and perhaps condition (Q, H). ``patches``: pictures shown."""

    key: str
    ids: list[int]
    labels: list[int] | None
    target: Tensor | None
    patches: Patches | None
    cached: Mapping[str, Tensor] | None = None


@dataclass
class EncodedBatch:
    """input_ids, attention_mask (B, L), padded on the right; labels (B, L) or None; target (B, 3, S, S) or None;
    patches of all shown pictures, in order, or None; cached: features (B, C, h, w), condition (B, Q, H)."""

    ids: list[str]
    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor | None
    target: Tensor | None
    patches: Patches | None
    cached: Mapping[str, Tensor] | None = None


@dataclass(frozen=True)
class Encoder:
    """Raw record -> Encoded; picklable, for reading workers.

    ``shown_size_px``: side of the centre crop in which a picture to be reconstructed is shown (None: as the model reads
    pictures). Raises: DataError for damaged records, and for those longer than ``max_length`` tokens with ``reserved``
    (the picture's own tokens) after them.
    """

    kind: DataKind
    reading: Reading
    inputs: InputBuilder
    prompts: Prompts
    preprocess: Preprocess | None
    max_length: int
    reserved: int
    shown_size_px: int | None = None

    def __call__(self, raw: RawRecord) -> Encoded:
        if self.kind == "conversations":
            return self._conversation(self.reading.conversation(raw))
        cached = cached_tensors(raw)
        if cached is None or self.kind == "reconstruction":
            encoded = self._picture(raw)
            return encoded if cached is None else replace(encoded, target=None, cached=cached)
        ids = self.inputs.encode(self.prompts.generation(text_mark(0)), [self.reading.text(raw)])
        self._check(raw.key, ids)
        return Encoded(raw.key, ids, None, None, None, cached)

    def _picture(self, raw: RawRecord) -> Encoded:
        if self.kind == "reconstruction":
            image, text, pictures = self.reading.picture(raw), RECONSTRUCT, vision_block(1)
            size = self.shown_size_px
            shown = [image if size is None else fit_square(image, size)]
        else:
            record = self.reading.caption(raw)
            image, text, pictures, shown = record.image, record.caption, "", []
        patches = self.inputs.patches(shown, self.shown_size_px)
        ids = self.inputs.encode(self.prompts.generation(text_mark(0), pictures), [text])
        (ids,) = self.inputs.spread([ids], patches)
        self._check(raw.key, ids)
        assert self.preprocess is not None, "pictures are drawn for a target encoder"
        return Encoded(raw.key, ids, None, self.preprocess([image])[0], patches)

    def _conversation(self, record: InstructionRecord) -> Encoded:
        patches = self.inputs.patches(record.images)
        counts = iter(patches.tokens if patches is not None else ())
        pad = self.inputs.tokenizer.convert_tokens_to_ids(IMAGE_PAD)
        ids: list[int] = []
        labels: list[int] = []
        for template, texts, learned in _pieces(record.turns, self.prompts):
            part = self.inputs.encode(template, texts)
            part = [i for id_ in part for i in [id_] * (next(counts) if id_ == pad else 1)]
            ids += part
            labels += part if learned else [-100] * len(part)
        self._check(record.key, ids)
        return Encoded(record.key, ids, labels, None, patches)

    def _check(self, key: str, ids: Sequence[int]) -> None:
        reserved = 0 if self.kind == "conversations" else self.reserved
        if len(ids) + reserved > self.max_length:
            raise DataError(
                f"record '{key}' has {len(ids)} tokens and {reserved} for its picture; at most {self.max_length}"
            )


def _pieces(
    turns: Sequence[tuple[str, str]], prompts: Prompts
) -> Iterator[tuple[str, list[str], bool]]:
    """A conversation as (template, its texts, whether its tokens are learned), as the chat template writes it."""
    yield prompts.system_turn(), [], False
    for user, assistant in turns:
        texts = user.split(PLACEHOLDER)
        marks = vision_block(1).join(text_mark(i) for i in range(len(texts)))
        yield user_turn(marks) + ASSISTANT, texts, False
        yield text_mark(0) + TURN_END.rstrip("\n"), [assistant], True
        yield "\n", [], False


def collate(records: list[Encoded], pad_id: int) -> EncodedBatch:
    """Records of one kind (all with labels, or all with a target) -> a batch."""
    longest = max(len(record.ids) for record in records)
    ids = torch.full((len(records), longest), pad_id)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for row, record in enumerate(records):
        ids[row, : len(record.ids)] = torch.tensor(record.ids)
        mask[row, : len(record.ids)] = 1
        if record.labels is not None:
            labels[row, : len(record.labels)] = torch.tensor(record.labels)
    shown = [record.patches for record in records if record.patches is not None]
    patches = None
    if shown:
        patches = Patches(
            torch.cat([p.pixel_values for p in shown]),
            torch.cat([p.image_grid_thw for p in shown]),
            [n for p in shown for n in p.tokens],
        )
    targets = [record.target for record in records if record.target is not None]
    return EncodedBatch(
        [record.key for record in records],
        ids,
        mask,
        labels if records[0].labels is not None else None,
        torch.stack(targets) if targets else None,
        patches,
        _stack_cached([record.cached for record in records]),
    )


def _stack_cached(rows: Sequence[Mapping[str, Tensor] | None]) -> dict[str, Tensor] | None:
    if rows[0] is None:
        return None
    return {name: torch.stack([row[name] for row in rows if row is not None]) for name in rows[0]}


class RecordsStage:
    """Image loss and text loss of a model on batches of records, for :func:`blip3o.train.loop.fit`.

    Args: spec: weights of the losses. features_of: the frozen target encoder, prepared pictures (B, 3, S, S) ->
        (B, C, h, w). images, texts: loaders of the two kinds of batches, None where their weight is 0.
    """

    def __init__(
        self,
        name: str,
        model: Blip3oModel,
        spec: StageSpec,
        features_of: nn.Module | None,
        images: RecordLoader | None,
        texts: RecordLoader | None,
    ) -> None:
        self.name, self.model, self.spec, self.features_of = name, model, spec, features_of
        self.modules: Mapping[str, nn.Module] = {"model": model}
        self.blocks = transformer_blocks(model)
        self.loaders = Loaders(images=images, texts=texts)
        self._has_seen_targets = False
        self.data_state, self.load_data_state = self.loaders.state, self.loaders.load_state

    def batch(self, index: int) -> tuple[EncodedBatch, ...]:
        """The next batch of each kind; order comes from the loaders' positions, not from ``index``."""
        return self.loaders.next()

    def counts(self, batch: tuple[EncodedBatch, ...]) -> dict[str, float]:
        """Pictures, and tokens to predict."""
        counts = {}
        for part in batch:
            if part.labels is None:
                counts["image"] = float(len(part.ids))
            else:
                counts["text"] = float((part.labels[:, 1:] != -100).sum())
        return counts

    def loss(
        self, batch: tuple[EncodedBatch, ...], generator: torch.Generator
    ) -> tuple[dict[str, Tensor], dict[str, float]]:
        terms, numbers = {}, {}
        for part in batch:
            if part.labels is None:
                loss = self._image_loss(part, generator)
                terms["image"], numbers["image"] = self.spec.image_weight * loss, loss.item()
            else:
                with phase("text"):
                    loss = self._text_loss(part)
                terms["text"], numbers["text"] = self.spec.text_weight * loss, loss.item()
        return terms, numbers

    def _image_loss(self, part: EncodedBatch, generator: torch.Generator) -> Tensor:
        device = next(self.model.parameters()).device
        cached = part.cached or {}
        if "features" in cached:
            target = cached["features"].to(device).float()
        else:
            assert self.features_of is not None and part.target is not None
            with phase("target_encoder"), torch.no_grad():
                parameter = next(self.features_of.parameters())
                target = self.features_of(part.target.to(device, parameter.dtype)).float()
        if not self._has_seen_targets and self.model.config.objective == "flow":
            self._has_seen_targets = True
            if line := unusual_scale(target):
                logger.warning("%s", line)
        if "condition" in cached:
            condition = cached["condition"].to(device, self.model.dtype)
        else:
            with phase("backbone"):
                condition = self._condition(part, device)
        with phase("generator"):
            loss: Tensor = self.model(target=target, condition=condition, generator=generator).loss
        return loss

    def _condition(self, part: EncodedBatch, device: torch.device) -> Tensor:
        return self.model.encode_condition(
            part.input_ids.to(device), part.attention_mask.to(device), **self._shown(part, device)
        )

    def _text_loss(self, part: EncodedBatch) -> Tensor:
        """Cross-entropy of the labelled tokens; the vocabulary's logits are made for those only."""
        device = next(self.model.parameters()).device
        ids, mask = part.input_ids.to(device), part.attention_mask.to(device)
        shown = self._shown(part, device)
        embeddings = self.model.backbone.embed(ids, **shown)
        positions = self.model.backbone.own_positions(ids, mask, shown.get("image_grid_thw"))
        hidden = self.model.backbone(embeddings, mask, positions).hidden_states[:, :-1]
        assert part.labels is not None
        wanted = part.labels[:, 1:].to(device)
        logits = self.model.backbone.logits(hidden[wanted != -100])
        return F.cross_entropy(logits.float(), wanted[wanted != -100])

    def _shown(self, part: EncodedBatch, device: torch.device) -> PictureInputs:
        if part.patches is None:
            return {}
        return part.patches.tensors(device, self.model.dtype)


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """Repeated blocks of backbone, vision tower and generation head: what FSDP2 gathers one at a time."""
    return [
        block
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and name.rsplit(".", 1)[-1] in ("layers", "blocks")
        for block in module
        if any(True for _ in block.parameters())
    ]


def learn_only(model: Blip3oModel, patterns: Sequence[str]) -> list[str]:
    """Freeze everything but the parameters that match a pattern; returns their names.

    ``{head}`` stands for the generation head's network. Raises: ConfigError for a pattern that matches nothing.
    """
    names = [name for name, _ in model.named_parameters()]
    learned: set[str] = set()
    for pattern in patterns:
        filled = pattern.replace("{head}", model.network_name)
        matched = {name for name in names if fnmatchcase(name, filled)}
        if not matched:
            parts = sorted({name.split(".")[0] for name in names})
            raise ConfigError(
                f"pattern '{pattern}' matches no parameter; names begin with {', '.join(parts)}"
            )
        learned |= matched
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in learned)
    return [name for name in names if name in learned]


def make_loader(
    ingredients: Sequence[Ingredient], config: LoaderConfig, pad_id: int
) -> RecordLoader | None:
    """A loader of encoded batches, or None without data sets."""
    from functools import partial

    if not ingredients:
        return None
    return RecordLoader(ingredients, config, partial(collate, pad_id=pad_id))
