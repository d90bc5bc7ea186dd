"""BLIP-VQA as judge: a small vision-language model that answers questions about photographs in free text.

Model: Li et al., BLIP, arXiv:2201.12086; weights `Salesforce/blip-vqa-capfilt-large` (BSD-3-Clause) through
transformers. Answers are generated as in its evaluation (salesforce/BLIP, configs/vqa.yaml and models/blip_vqa.py):
three beams, at most ten tokens. They are handed on as they are; DPG-Bench counts "yes" and nothing else.

Each picture goes through the vision tower once for all its questions. Questions of equal length share a forward pass:
transformers (5.23) does not mask the padding of questions where the decoder attends to them, so a padded question gets
another answer than the same question alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evals.api import ModelOptions
from evals.judges.pairs import unique_pictures
from evals.judges.pretrained import (
    PretrainedJudge,
    Weights,
    chunks,
    find_weights,
    read_arguments,
    refuse_pickles,
)

HUB_ID = "Salesforce/blip-vqa-capfilt-large"
PICTURES, QUESTIONS = 16, 64
"""Most pictures, and questions, of one forward pass; results do not depend on them."""


@dataclass(frozen=True)
class _Arguments:
    dtype: str = "float32"
    num_beams: int = 3
    max_new_tokens: int = 10
    revision: str | None = None


def create(spec: str, options: ModelOptions) -> BlipVqaJudge:
    """Factory for `--judge blip-vqa`, `blip-vqa:FOLDER` or `blip-vqa:owner/name`; `--set judge.args.X=...`."""
    arguments = read_arguments(options.extra, _Arguments)
    weights = find_weights(spec or HUB_ID, arguments.revision)
    refuse_pickles(weights)
    return BlipVqaJudge(weights, f"blip-vqa:{weights.label}" if spec else "blip-vqa", options.device, arguments)


class BlipVqaJudge(PretrainedJudge):
    """`evals.api.QuestionJudge` and `ProbabilityJudge` around transformers' BlipForQuestionAnswering."""

    network = "BlipForQuestionAnswering"
    processor = "BlipImageProcessorPil"

    def __init__(self, weights: Weights, name: str, device: str, arguments: _Arguments) -> None:
        super().__init__(weights, name, device, batch_size=8, settings=asdict(arguments))
        self._arguments = arguments

    def ask(self, images: Sequence[Any], questions: Sequence[str]) -> Sequence[str]:
        """The generated text per (picture, question), lower case as the tokenizer writes it."""
        return self._each(images, questions, self._generate)

    def probability(self, images: Sequence[Any], questions: Sequence[str], answer: str) -> Sequence[float]:
        """Probability that the decoder's text begins with ``answer`` ("Yes" is "yes" to its tokenizer)."""
        tokens = self._tokens([answer])[0][1:-1]
        return self._each(images, questions, lambda states: self._likelihood(states, tokens))

    def _each(
        self, images: Sequence[Any], questions: Sequence[str], read: Callable[[Any], Sequence[Any]]
    ) -> list[Any]:
        """``read`` of the questions' states (B, L, D), each picture seen once, questions of one length together."""
        import torch

        if self._model is None:
            self.load()
        pictures, numbers = unique_pictures(images, questions)
        with torch.inference_mode():
            features = [row for part in chunks(pictures, PICTURES) for row in self._see(part)]
            tokens = self._tokens([str(question) for question in questions])
            results: list[Any] = [None] * len(tokens)
            by_length: dict[int, list[int]] = {}
            for place, ids in enumerate(tokens):
                by_length.setdefault(len(ids), []).append(place)
            for places in by_length.values():
                for part in chunks(places, QUESTIONS):
                    rows = torch.stack([features[numbers[place]] for place in part])
                    states = self._question_states(rows, [tokens[place] for place in part])
                    for place, result in zip(part, read(states), strict=True):
                        results[place] = result
        return results

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        """With the marks of beginning and end."""
        if self._model is None:
            self.load()
        limit = self._model.config.text_config.max_position_embeddings
        ids: list[list[int]] = self._tokenizer(texts, truncation=True, max_length=limit).input_ids
        return ids

    def _see(self, pictures: Sequence[Any]) -> Any:
        """Image features (pictures, patches + 1, width)."""
        pixels = self._processor(list(pictures), return_tensors="pt").pixel_values
        return self._model.vision_model(pixel_values=pixels.to(self._device, self._model.dtype))[0]

    def _question_states(self, features: Any, tokens: list[list[int]]) -> Any:
        """What the decoder reads (B, L, D), from image features and questions of one length."""
        import torch

        ids = torch.tensor(tokens, device=self._device)
        return self._model.text_encoder(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=features,
            encoder_attention_mask=ids.new_ones(features.shape[:2]),
            return_dict=False,
        )[0]

    def _generate(self, states: Any) -> list[str]:
        """As BlipForQuestionAnswering.generate does."""
        import torch

        model = self._model
        seen = torch.ones(states.shape[:2], dtype=torch.long, device=self._device)
        new = model.text_decoder.generate(
            input_ids=seen.new_full((len(states), 1), model.decoder_start_token_id),
            eos_token_id=model.config.text_config.sep_token_id,
            pad_token_id=model.config.text_config.pad_token_id,
            encoder_hidden_states=states,
            encoder_attention_mask=seen,
            num_beams=self._arguments.num_beams,
            max_new_tokens=self._arguments.max_new_tokens,
            do_sample=False,
        )
        return [t.strip() for t in self._tokenizer.batch_decode(new, skip_special_tokens=True)]

    def _likelihood(self, states: Any, answer: list[int]) -> list[float]:
        """Product of the probabilities of the answer's tokens, each after those before it."""
        import torch

        from evals.judges.mplug_search import likelihoods

        model = self._model
        start = [model.decoder_start_token_id, *answer[:-1]]
        ids = torch.tensor([start] * len(states), device=self._device)
        logits = model.text_decoder(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            encoder_hidden_states=states,
            encoder_attention_mask=ids.new_ones(states.shape[:2]),
        ).logits
        return [float(p) for p in likelihoods(logits, torch.tensor(answer, device=self._device))]
