"""Questions -> answers or scores of choices: prompts, batches, contexts and the loop put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from blip3o.answering.batches import Batching, Budget, run_batches, tokens_that_fit
from blip3o.answering.choices import score_choices
from blip3o.answering.context import Context, Piece, read
from blip3o.answering.decode import Row, decode
from blip3o.answering.prompts import Prompt, PromptBuilder
from blip3o.answering.questions import ChoiceScores, Question, Sampling
from blip3o.backbone import PictureInputs
from blip3o.errors import DataError
from blip3o.inputs import InputBuilder
from blip3o.prompts import Prompts
from blip3o.unified import Blip3oModel


class Answers:
    """Answers of one model. Args: device: asked before each call, which may bring the backbone there."""

    def __init__(
        self,
        model: Blip3oModel,
        inputs: InputBuilder,
        prompts: Prompts,
        device: Callable[[], torch.device],
    ) -> None:
        self.model, self.inputs, self.prompts, self._device = model, inputs, prompts, device
        self._at = torch.device("cpu")  # where the backbone was brought last
        self.budget = Budget(self._tokens_that_fit)

    @torch.no_grad()
    def answer(
        self, questions: Sequence[Question], sampling: Sampling, batching: Batching
    ) -> list[str]:
        """One answer per question.

        It ends with the turn, before a stop text, at its limit, or where the backbone's longest sequence is full.
        Raises: DataError for a question or picture, before anything is read.
        """
        prompts = self._builder(batching).build(questions)
        rooms = [self._room(p, q.max_new_tokens) for p, q in zip(prompts, questions, strict=True)]
        device = self._at = self._device()

        def run(places: list[int]) -> list[str]:
            states, context = self._read([prompts[i] for i in places], device)
            # A generator that a failed attempt has moved on would draw another answer.
            rows = [Row(rooms[i], questions[i].stop, _copied(questions[i].generator)) for i in places]
            decode(self.model.backbone, self.inputs.tokenizer, context, states, rows, sampling)
            return [self._text(row) for row in rows]

        return run_batches(prompts, rooms, batching, self.budget, run)

    @torch.no_grad()
    def score(
        self, questions: Sequence[Question], choices: Sequence[Sequence[str]], batching: Batching
    ) -> list[ChoiceScores]:
        """How likely each question's choices are as the beginning of the answer.

        A choice's tokens are those of its text alone, after the prompt's. Raises: as ``answer``.
        """
        tokens = [[self.inputs.encode_text(text) for text in own] for own in choices]
        rooms = [sum(map(len, own)) for own in tokens]
        longest = max(len(ids) for own in tokens for ids in own)
        if self.inputs.max_tokens is not None and longest >= self.inputs.max_tokens:
            raise DataError(
                f"a choice has {longest} tokens; this model reads {self.inputs.max_tokens} at most, with the question"
            )
        prompts = self._builder(batching).build(questions, reserved=longest)
        device = self._at = self._device()

        def run(places: list[int]) -> list[ChoiceScores]:
            states, context = self._read([prompts[i] for i in places], device)
            own = [tokens[i] for i in places]
            return score_choices(self.model.backbone, context, states, own)

        return run_batches(prompts, rooms, batching, self.budget, run)

    # Inside

    def _builder(self, batching: Batching) -> PromptBuilder:
        return PromptBuilder(self.inputs, self.prompts, batching.shares_pictures)

    def _room(self, prompt: Prompt, wanted: int) -> int:
        longest = self.inputs.max_tokens
        return wanted if longest is None else min(wanted, longest - len(prompt))

    def _text(self, row: Row) -> str:
        text = self.inputs.decode(row.ids)
        ends = [place for end in row.stop if (place := text.find(end)) >= 0]
        return (text[: min(ends)] if ends else text).strip()

    def _read(self, prompts: Sequence[Prompt], device: torch.device) -> tuple[Tensor, Context]:
        """The state of each prompt's last token (B, D), and the context after it.

        Where prompts share their pictures, every distinct head is read once and each question goes on from its own.
        """
        first: dict[tuple[object, ...], int] = {}
        for i, prompt in enumerate(prompts):
            first.setdefault(prompt.key, i)
        if len(first) == len(prompts):
            hidden, context = self._piece(prompts, [(0, len(p)) for p in prompts], device)
            return hidden[:, -1], context
        heads = [prompts[i] for i in first.values()]
        # A head of no tokens cannot be padded to one: questions without pictures share nothing, and go with their whole
        # prompt as the head but its last token.
        bounds = [p.head or len(p) - 1 for p in heads]
        _, context = self._piece(heads, [(0, end) for end in bounds], device)
        places = {key: place for place, key in enumerate(first)}
        context = context.branch([places[p.key] for p in prompts])
        spans = [(bounds[places[p.key]], len(p)) for p in prompts]
        hidden, context = self._piece(prompts, spans, device, context)
        return hidden[:, -1], context

    def _piece(
        self,
        prompts: Sequence[Prompt],
        spans: Sequence[tuple[int, int]],
        device: torch.device,
        context: Context | None = None,
    ) -> tuple[Tensor, Context]:
        """Read tokens ``spans[i]`` of each prompt, padded on the left; pictures when the span holds their tokens."""
        backbone, inputs = self.model.backbone, self.inputs
        ids, mask = inputs.pad(
            [p.ids[a:b] for p, (a, b) in zip(prompts, spans, strict=True)], side="left"
        )
        shown = [pic for p, (a, _) in zip(prompts, spans, strict=True) if a == 0 for pic in p.pictures]
        patches = inputs.patches(shown)
        tensors: PictureInputs = {} if patches is None else patches.tensors(device, self.model.dtype)
        positions = self._positions(prompts, spans, ids.shape[1])
        piece = Piece(
            backbone.embed(ids.to(device), **tensors), mask.to(device), positions.to(device)
        )
        return read(backbone, piece, context)

    def _positions(
        self, prompts: Sequence[Prompt], spans: Sequence[tuple[int, int]], length: int
    ) -> Tensor:
        """The backbone's own positions (..., B, L) of the spans, each prompt's counted over the whole of it."""
        found = []
        for prompt, (start, end) in zip(prompts, spans, strict=True):
            ids = torch.tensor([prompt.ids])
            grids = self.inputs.grids(prompt.pictures)
            own = self.model.backbone.own_positions(ids, torch.ones_like(ids), grids)
            own = own[..., start:end]
            found.append(torch.nn.functional.pad(own, (length - own.shape[-1], 0)))
        return torch.cat(found, dim=-2)

    def _tokens_that_fit(self) -> int:
        model = self.model
        return tokens_that_fit(model.backbone.text_config, self._at, model.dtype)


def _copied(generator: torch.Generator | None) -> Any:
    return None if generator is None else torch.Generator("cpu").set_state(generator.get_state())
