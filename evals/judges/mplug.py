"""mPLUG as judge: the VQA model behind DPG-Bench's published figures, where its weights are given.

`--judge mplug:FOLDER`, or `--judge mplug` for the hub's mirror of ModelScope's
`mplug_visual-question-answering_coco_large_en` (Apache-2.0). Pictures, questions and search as modelscope's pipeline:
504 x 504 bicubic whatever the shape, questions in lower case cut to 25 tokens, five beams. Each picture goes through
the vision tower once for all its questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evals.api import Identity, ModelOptions
from evals.errors import UsageError
from evals.judges.pairs import unique_pictures
from evals.judges.pretrained import chunks, find_weights, read_arguments

if TYPE_CHECKING:
    from evals.judges.mplug_files import MplugFiles

PICTURES, QUESTIONS = 8, 16
"""Most pictures, and questions, of one forward pass; results do not depend on them."""
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class _Arguments:
    dtype: str = "float32"
    max_question_tokens: int = 25  # modelscope's default; a reimplementation that circulates uses 35
    revision: str | None = None


def create(spec: str, options: ModelOptions) -> MplugJudge:
    """Factory for `--judge mplug`, `mplug:FOLDER` or `mplug:owner/name`; `--set judge.args.X=...`."""
    from evals.judges.mplug_files import HUB_ID, WANTED, read_folder

    arguments = read_arguments(options.extra, _Arguments)
    if arguments.max_question_tokens < 3:
        given = arguments.max_question_tokens
        raise UsageError(f"judge.args.max_question_tokens = {given}: give at least 3, two of them are marks")
    weights = find_weights(spec or HUB_ID, arguments.revision, WANTED)
    name = f"mplug:{weights.label}" if spec else "mplug"
    return MplugJudge(read_folder(weights.folder), name, options.device, arguments)


class MplugJudge:
    """`evals.api.QuestionJudge` and `ProbabilityJudge` around `mplug_network.Mplug`."""

    def __init__(self, files: MplugFiles, name: str, device: str, arguments: _Arguments) -> None:
        self._files, self._wanted_device, self._arguments = files, device, arguments
        self._model: Any = None
        self._tokenizer: Any = None
        self.identity = Identity(
            name=name,
            version="1",
            digest=files.digest(),
            domain="photos",
            settings={
                "dtype": arguments.dtype,
                "max_question_tokens": arguments.max_question_tokens,
                "num_beams": files.beam_size,
                "revision": arguments.revision,
            },
            batch_size=8,
        )

    def load(self) -> None:
        """Build the network. Raises JudgeError for weights that do not fit."""
        import torch
        from transformers import BertTokenizer

        from evals.judges.mplug_files import read_tensors
        from evals.judges.mplug_network import Mplug
        from evals.models.devices import resolve_device

        self._device = resolve_device(self._wanted_device)
        with torch.device("meta"):
            model = Mplug(self._files.sizes)
        tensors = read_tensors(self._files, model.state_dict())
        model.load_state_dict(tensors, assign=True)
        model.requires_grad_(False)
        self._dtype = getattr(torch, self._arguments.dtype)
        self._model = model.to(self._device, self._dtype).eval()
        self._tokenizer = BertTokenizer(str(self._files.folder / "vocab.txt"), do_lower_case=True)

    def close(self) -> None:
        self._model = self._tokenizer = None

    def accuracy(self) -> Mapping[str, Any]:
        """Nobody has published how often it is right on DPG-Bench."""
        return {}

    def ask(self, images: Sequence[Any], questions: Sequence[str]) -> Sequence[str]:
        """The best beam's text per (picture, question)."""
        return self._each(images, questions, self._generate)

    def probability(self, images: Sequence[Any], questions: Sequence[str], answer: str) -> Sequence[float]:
        """Probability that the decoder's text begins with ``answer`` ("Yes" is "yes" to its tokenizer)."""
        if self._model is None:
            self.load()
        tokens = self._tokenizer(answer, add_special_tokens=False).input_ids
        return self._each(images, questions, lambda states, seen: self._likelihood(states, seen, tokens))

    def _each(
        self, images: Sequence[Any], questions: Sequence[str], read: Callable[[Any, Any], Sequence[Any]]
    ) -> list[Any]:
        """``read`` of what the decoder attends to, and of what of it counts."""
        import torch

        if self._model is None:
            self.load()
        pictures, numbers = unique_pictures(images, questions)
        results: list[Any] = []
        with torch.inference_mode():
            seen = [row for part in chunks(pictures, PICTURES) for row in self._model.see(self._pixels(part))]
            for part in chunks(range(len(questions)), QUESTIONS):
                tokens = self._tokenizer(
                    [str(questions[n]).lower() for n in part],
                    padding=True,
                    truncation=True,
                    max_length=self._arguments.max_question_tokens,
                    return_tensors="pt",
                ).to(self._device)
                rows = torch.stack([seen[numbers[n]] for n in part])
                results += read(*self._model.read(rows, tokens.input_ids, tokens.attention_mask.bool()))
        return results

    def _pixels(self, pictures: Sequence[Any]) -> Any:
        """(P, 3, side, side), each picture squeezed into a square by Pillow's bicubic."""
        import numpy as np
        import torch
        from PIL import Image

        side = self._files.sizes.image_size
        arrays = [np.asarray(p.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 255 for p in pictures]
        pixels = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        mean, std = (torch.tensor(values)[None, :, None, None] for values in (MEAN, STD))
        return ((pixels - mean) / std).to(self._device, self._dtype)

    def _generate(self, states: Any, seen: Any) -> list[str]:
        from evals.judges.mplug_search import beam_search

        decoder, tokenizer = self._model.text_decoder, self._tokenizer
        memories = decoder.memories(states)

        def next_logits(ids: Any, rows: Any) -> Any:
            kept = [(keys[rows], values[rows]) for keys, values in memories]
            return decoder(ids, kept, seen[rows])[:, :, -1]

        found = beam_search(
            next_logits,
            len(states),
            beams=self._files.beam_size,
            start=tokenizer.cls_token_id,
            end=tokenizer.sep_token_id,
            min_length=self._files.min_length,
            max_length=self._files.max_length,
            device=states.device,
        )
        return [tokenizer.decode(ids, skip_special_tokens=True) for ids in found]

    def _likelihood(self, states: Any, seen: Any, answer: list[int]) -> list[float]:
        import torch

        from evals.judges.mplug_search import likelihoods

        decoder = self._model.text_decoder
        ids = torch.tensor([self._tokenizer.cls_token_id, *answer[:-1]], device=states.device)
        logits = decoder(ids.expand(len(states), 1, -1), decoder.memories(states), seen)[:, 0]
        return [float(p) for p in likelihoods(logits, torch.tensor(answer, device=states.device))]
