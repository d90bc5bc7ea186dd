"""Conversations of many turns that mix text and pictures both ways, on a key/value cache.

Every turn is read by the backbone once. A picture that the model draws enters the conversation as one that the
user shows would: through the vision tower.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from PIL import Image
from torch import Tensor

from blip3o.answering.decode import Row
from blip3o.answering.questions import MAX_NEW_TOKENS
from blip3o.backbone import PictureInputs
from blip3o.dialogue_reader import Reader, TokenContext
from blip3o.errors import ConfigError, DataError
from blip3o.inputs import checked_picture, checked_texts
from blip3o.prompts import ASSISTANT, TURN_END, VISION_BLOCK, text_mark, user_turn
from blip3o.settings import check_count, check_seed

if TYPE_CHECKING:
    from blip3o.pipeline import Blip3oPipeline

Role = Literal["user", "assistant"]
# The first picture of a conversation has this seed, the next ones count on.
SEED = 42


@dataclass(frozen=True)
class Turn:
    """One turn. ``wish``: the user asked for a picture; of a caption ("draw") or by an instruction ("edit").

    ``seed``: of the picture that the assistant drew.
    """

    role: Role
    text: str = ""
    images: tuple[Image.Image, ...] = ()
    wish: Literal["", "draw", "edit"] = ""
    seed: int | None = None


class Dialogue:
    """A conversation with one model.

    Args: seed: of the first picture; each further picture adds 1. use_cache: False reads everything anew at each
        turn (slow; for comparison).

    Its state is ``turns``, and nothing else decides the next reply: a conversation rebuilt from its turns by ``add``
    goes on as the first one would have.
    """

    def __init__(
        self, pipeline: Blip3oPipeline, *, seed: int = SEED, use_cache: bool = True
    ) -> None:
        check_seed(seed)
        self.pipeline, self.seed, self.use_cache = pipeline, seed, use_cache
        self.turns: list[Turn] = []
        self._restart_readers()
        self._context = TokenContext()
        self._context = self._extended(pipeline.prompts.system_turn())

    # Turns

    def add(self, turn: Turn) -> None:
        """Take over a turn that is already known, as when a transcript is read. Nothing is generated.

        Raises: DataError if it is not this role's turn, a picture is unusable, or the backbone cannot read it all.
        """
        expected = "user" if len(self.turns) % 2 == 0 else "assistant"
        if turn.role != expected:
            raise DataError(
                f"turn {len(self.turns)} must be the {expected}'s, got {turn.role!r}: turns alternate"
            )
        for picture in turn.images:
            checked_picture(picture)
        block, mark = VISION_BLOCK * len(turn.images), text_mark(0)
        if turn.role == "assistant":
            rendered = ASSISTANT + block + mark + TURN_END
        elif turn.wish == "draw" or (turn.wish and block):
            rendered = user_turn(self.pipeline.prompts.wish(mark, block))
        else:  # a question, or an instruction about pictures of earlier turns
            rendered = user_turn(block + mark)
        self._context = self._extended(rendered, [turn.text], turn.images)
        self.turns.append(turn)

    def send(
        self, text: str, images: Sequence[Image.Image] = (), *, max_new_tokens: int | None = None
    ) -> str | Image.Image:
        """What the model chooses to reply: text, or a picture where it begins with the image start token."""
        return self._reply(text, images, max_new_tokens, may_draw=True)

    def ask(
        self, text: str, images: Sequence[Image.Image] = (), *, max_new_tokens: int | None = None
    ) -> str:
        """The model's answer in text. Greedy."""
        answer = self._reply(text, images, max_new_tokens, may_draw=False)
        assert isinstance(answer, str)
        return answer

    def draw(self, caption: str, **settings: Any) -> Image.Image:
        """A new picture of a caption; settings as in a call of the pipeline."""
        with self._turn(Turn("user", checked_texts(caption, "caption")[0], wish="draw")):
            return self._draw(settings)

    def edit(
        self, instruction: str, images: Sequence[Image.Image] = (), **settings: Any
    ) -> Image.Image:
        """A picture by an instruction about ``images``, or about the pictures of the conversation so far."""
        text = checked_texts(instruction, "instruction")[0]
        if not images and not any(turn.images for turn in self.turns):
            raise DataError(
                "there is no picture to edit in this conversation; give one, or draw one first"
            )
        with self._turn(Turn("user", text, tuple(images), wish="edit")):
            return self._draw(settings)

    # Inside

    @contextmanager
    def _turn(self, turn: Turn) -> Iterator[None]:
        """Add the user's turn; if the reply fails, the conversation is as it was before it."""
        with self.undone_on_error():
            self.add(turn)
            yield

    @contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Whatever was added inside is taken back if the block fails."""
        context, turns = self._context, list(self.turns)
        try:
            yield
        except BaseException:
            self._context, self.turns = context, turns
            self._restart_readers()  # a pass may have broken off between two layers
            raise

    def _reply(
        self, text: str, images: Sequence[Image.Image], limit: int | None, may_draw: bool
    ) -> str | Image.Image:
        limit = MAX_NEW_TOKENS if limit is None else limit
        check_count("max_new_tokens", limit)
        with self._turn(Turn("user", checked_texts(text, "text")[0], tuple(images))):
            answer = self._answer(limit, may_draw)
            if answer is None:
                return self._draw({})
            self.add(Turn("assistant", answer))
        return answer

    def _draw(self, settings: dict[str, Any]) -> Image.Image:
        """The picture that the last turn asks for, as the assistant's turn."""
        for name in ("generator", "num_images_per_prompt", "output_type"):
            if name in settings:
                raise ConfigError(f"a conversation sets {name} itself; leave it out")
        self.pipeline.require_decoder()
        seed = self.seed + sum(turn.seed is not None for turn in self.turns)
        generator = torch.Generator("cpu").manual_seed(seed)
        output = self.pipeline.draw(self._condition(), [generator], **settings)
        picture: Image.Image = output.images[0]
        self.add(Turn("assistant", images=(picture,), seed=seed))
        return picture

    def _restart_readers(self) -> None:
        model = self.pipeline.model
        self._plain = Reader(model, has_own_positions=False)
        self._own = Reader(model, has_own_positions=True)

    @torch.no_grad()
    def _extended(
        self, rendered: str, texts: Sequence[str] = (), pictures: Sequence[Image.Image] = ()
    ) -> TokenContext:
        """The context with a rendered piece of chat after it. Raises: DataError if it does not fit."""
        inputs, model = self.pipeline.inputs, self.pipeline.model
        patches = inputs.patches(pictures)
        [ids] = inputs.spread([inputs.encode(rendered, texts)], patches)
        room = (inputs.max_tokens or math.inf) - len(self._context) - model.config.num_queries - 1
        if len(ids) > room:
            raise DataError(
                f"the conversation has {len(self._context)} tokens and this turn {len(ids)} more; the model reads "
                f"{inputs.max_tokens} at most: start a new conversation"
            )
        device = self.pipeline.use_part("backbone")
        tensors: PictureInputs = {} if patches is None else patches.tensors(device, model.dtype)
        embedded = model.backbone.embed(torch.tensor([ids], device=device), **tensors)
        return self._context.extended(
            ids, embedded, () if patches is None else (patches.image_grid_thw,)
        )

    @torch.no_grad()
    def _condition(self) -> Tensor:
        """Query states (1, Q, H) after the context and the image start token."""
        device = self.pipeline.use_part("backbone")
        model, inputs = self.pipeline.model, self.pipeline.inputs
        header = inputs.encode(self.pipeline.prompts.picture_header(), [])
        ids = torch.tensor([[*header, model.config.tokens.image_start]], device=device)
        tail = model.backbone.embed(ids)
        queries = model.queries(1).to(tail.dtype)
        if not self.use_cache:
            self._restart_readers()
        self._plain.read(self._context)
        states = self._plain.forward_and_forget(torch.cat([tail, queries], dim=1))
        return states[:, -queries.shape[1] :]

    @torch.no_grad()
    def _answer(self, max_new_tokens: int, may_draw: bool) -> str | None:
        """Greedy text after the context; None where the model would rather draw.

        The context stays as it is: the answer enters it from its text (``add``), so that a conversation rebuilt from
        its transcript holds the same tokens.
        """
        self.pipeline.use_part("backbone")
        model, inputs = self.pipeline.model, self.pipeline.inputs
        tokens, image_start = inputs.tokenizer, model.config.tokens.image_start
        if not self.use_cache:
            self._restart_readers()
        context = self._extended(ASSISTANT)
        room = int(min(max_new_tokens, (inputs.max_tokens or math.inf) - len(context)))
        stays_text = () if may_draw else (image_start,)
        row = Row(room, ends=(image_start,), barred=stays_text)
        self._own.answer_and_forget(context, row, tokens)
        self._own.crop(len(self._context))
        if row.ended_by == image_start and not row.ids:
            return None
        return inputs.decode(row.ids).strip()
