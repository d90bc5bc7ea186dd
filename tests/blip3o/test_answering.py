"""Answers and log-likelihoods, against transformers' own loop and direct computations; every lever on and off."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from blip3o.answering import Question, Sampling
from blip3o.answering.batches import Batching, Budget, arrange, cut
from blip3o.answering.decode import next_tokens
from blip3o.answering.prompts import Prompt, PromptBuilder
from blip3o.cli import main
from blip3o.errors import ConfigError, DataError, WeightsError
from blip3o.pipeline import Blip3oPipeline

SEEING = ("tiny", "tiny-qwen3-siglip2")
ALL = (*SEEING, "tiny-llama")


@cache
def load(name: str) -> Blip3oPipeline:
    """Random, with weights large enough that answers depend on every word; pictures near their own size."""
    pipe = Blip3oPipeline.from_pretrained(name)
    with torch.no_grad():
        for part, parameter in pipe.model.backbone.named_parameters():
            if parameter.dim() > 1 and "embed_tokens" not in part:
                parameter.mul_(10)
    if name == "tiny":  # the other tower has a fixed grid
        pipe.understanding = type(pipe.understanding)(min_pixels=16 * 16, max_pixels=64 * 64)
        pipe.inputs.understanding = pipe.understanding
    return pipe


@cache
def photo(seed: int, width: int = 40, height: int = 32) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def asked(name: str) -> tuple[list[Any], list[str]]:
    """Questions of several lengths: two about one picture, one about two, one about a large one, two about none."""
    a, b, c = photo(0), photo(1, 20, 60), photo(2, 90, 70)
    again = photo(0).copy()  # the same pixels in another object, as a table's rows bring them
    images = [a, again, [a, b], c, None, None]
    if name == "tiny-llama":
        images = [None] * 6
    texts = ["what?", "Is there a dog in the picture, or a cat?", "which?", "dog", "hello there you", "a"]
    return images, texts


@torch.no_grad()
def by_transformers(pipe: Blip3oPipeline, image: Any, text: str, limit: int) -> str:
    """Greedy, one question alone, by the library's own loop."""
    own = [] if image is None else image if isinstance(image, list) else [image]
    [prompt] = PromptBuilder(pipe.inputs, pipe.prompts).build([Question(text, own)])
    ids = torch.tensor([prompt.ids])
    patches = pipe.inputs.patches(own)
    pictures = {} if patches is None else patches.tensors(pipe.device, pipe.dtype)
    backbone: Any = pipe.model.backbone
    settings = {
        "attention_mask": torch.ones_like(ids), "max_new_tokens": limit, "do_sample": False,
        "eos_token_id": pipe.tokenizer.eos_token_id, "pad_token_id": pipe.inputs.pad_id,
    }  # fmt: skip
    if hasattr(backbone, "lm"):  # a language model, maybe with a tower that is not transformers' own
        new = backbone.lm.generate(inputs_embeds=backbone.embed(ids, **pictures), **settings)
    else:
        backbone.vlm.model.rope_deltas = None  # of an earlier call
        types = (ids == backbone.image_token_id).int()
        new = backbone.vlm.generate(input_ids=ids, mm_token_type_ids=types, **pictures, **settings)
        new = new[:, ids.shape[1] :]
    return pipe.tokenizer.decode(new[0], skip_special_tokens=True).strip()


LEVERS: list[dict[str, Any]] = [
    {},
    {"batch_size": 1},
    {"batch_size": 2, "by_length": False},
    {"batch_size": 2, "share_pictures": False},
    {"share_pictures": False, "by_length": False},
]


@pytest.mark.parametrize("name", ALL)
def test_answers_are_those_of_transformers_whatever_the_batch(name: str) -> None:
    pipe = load(name)
    images, texts = asked(name)
    wanted = [by_transformers(pipe, i, t, 8) for i, t in zip(images, texts, strict=True)]
    assert len(set(wanted)) > 3, "the random model answers alike; the test would show little"
    for levers in LEVERS:
        assert pipe.ask_batch(images, texts, max_new_tokens=8, **levers) == wanted, levers


@pytest.mark.parametrize("name", ALL)
def test_choices_score_as_a_direct_computation_says(name: str) -> None:
    pipe = load(name)
    images, texts = asked(name)
    choices = ["A", "a photo of a dog", "no picture, and <|im_end|> is text"]
    wanted = [
        [directly(pipe, image, text, choice) for choice in choices]
        for image, text in zip(images, texts, strict=True)
    ]
    for levers in LEVERS:
        for scores, rows in zip(pipe.score_choices(images, texts, choices, **levers), wanted, strict=True):
            values, are_greedy, counts = zip(*rows, strict=True)
            assert scores.log_likelihoods == pytest.approx(values, abs=2e-3 * max(counts)), levers
            assert (scores.is_greedy, scores.num_tokens) == (are_greedy, counts)
            assert scores.best == int(np.argmax(scores.log_likelihoods))


def directly(pipe: Blip3oPipeline, image: Any, text: str, choice: str) -> tuple[float, bool, int]:
    """ln p of a choice: the whole sequence through the model at once, without cache, padding or batch."""
    own = [] if image is None else image if isinstance(image, list) else [image]
    [prompt] = PromptBuilder(pipe.inputs, pipe.prompts).build([Question(text, own)])
    answer = pipe.inputs.encode_text(choice)
    ids = torch.tensor([[*prompt.ids, *answer]])
    patches = pipe.inputs.patches(own)
    pictures = {} if patches is None else patches.tensors(pipe.device, pipe.dtype)
    with torch.no_grad():
        logits = pipe.model.backbone.text_logits(ids, torch.ones_like(ids), **pictures)[0]
    places = range(len(prompt.ids) - 1, ids.shape[1] - 1)
    values = [float(logits[p].log_softmax(-1)[t]) for p, t in zip(places, answer, strict=True)]
    best = all(int(logits[p].argmax()) == t for p, t in zip(places, answer, strict=True))
    return sum(values), best, len(answer)


@pytest.mark.parametrize("name", SEEING)
def test_drawn_answers_belong_to_their_question(name: str) -> None:
    pipe = load(name)
    images, texts = asked(name)

    def draw(places: list[int], **levers: Any) -> list[str]:
        seeds = [torch.Generator().manual_seed(7 + p) for p in places]
        return pipe.ask_batch(
            [images[p] for p in places], [texts[p] for p in places], max_new_tokens=8, temperature=1.3,
            top_p=0.9, top_k=40, generator=seeds, **levers,
        )  # fmt: skip

    together = draw(list(range(6)))
    assert together == [draw([p])[0] for p in range(6)]
    assert together[::-1] == draw(list(range(6))[::-1], batch_size=2, share_pictures=False)
    other = pipe.ask_batch(
        images, texts, max_new_tokens=8, temperature=1.3, generator=torch.Generator().manual_seed(1)
    )
    assert other != together


def test_drawn_tokens_follow_the_probabilities() -> None:
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0, -9.0]])
    sampling = Sampling(temperature=0.8, top_k=4, top_p=0.95)
    generator = torch.Generator().manual_seed(0)
    tokens = next_tokens(logits.expand(20_000, -1), [generator] * 20_000, sampling)
    shares = (logits[0, :4] / 0.8).softmax(0)
    kept = shares * ((shares.cumsum(0) - shares) < 0.95)
    wanted = kept / kept.sum()
    counts = torch.bincount(torch.tensor(tokens), minlength=5)[:4] / 20_000
    assert (counts - wanted).abs().max() < 0.012
    assert 4 not in tokens
    assert next_tokens(logits, [None], Sampling()) == [0]
    assert next_tokens(logits, [generator], Sampling(temperature=5.0, top_k=1)) == [0]


def test_each_question_has_its_own_limit_and_stops() -> None:
    pipe = load("tiny")
    image, text = photo(0), "what is it?"
    whole = pipe.ask(image, text, max_new_tokens=16)
    mark = whole[len(whole) // 2 :][:2]
    found = pipe.ask_batch(
        [image] * 4, [text] * 4, max_new_tokens=[16, 16, 5, 24], stop=[(), (mark,), (), ("\x00",)]
    )
    assert found[0] == whole and found[1] == whole[: whole.find(mark)].strip()
    assert found[2] == pipe.ask(image, text, max_new_tokens=5) != whole
    assert found[3].startswith(whole)


def test_an_answer_ends_where_the_longest_sequence_is_full_whatever_its_neighbours() -> None:
    pipe = load("tiny-llama")
    limit = pipe.inputs.max_tokens
    [short, long] = PromptBuilder(pipe.inputs, pipe.prompts).build([Question("a"), Question("a b " * 60)])
    pipe.inputs.max_tokens = len(long) + 3
    try:
        together = pipe.ask_batch([None, None], ["a", "a b " * 60], max_new_tokens=10)
        assert together[0] == pipe.ask(None, "a", max_new_tokens=10)
        assert together[1] == pipe.ask(None, "a b " * 60, max_new_tokens=3)
        pipe.inputs.max_tokens = len(long) + 1
        with pytest.raises(DataError, match="longest choice|reads at most"):
            pipe.score_choices([None], ["a b " * 60], ["x" * 9])
    finally:
        pipe.inputs.max_tokens = limit
    assert len(short) < len(long)


def counted(pipe: Blip3oPipeline, monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Counts pictures and tokens that go through the backbone."""
    counts = {"pictures": 0, "tokens": 0}
    backbone, embed = pipe.model.backbone, pipe.model.backbone.embed

    def counting(ids: torch.Tensor, pixel_values: Any = None, image_grid_thw: Any = None) -> Any:
        counts["tokens"] += ids.numel()
        counts["pictures"] += 0 if image_grid_thw is None else len(image_grid_thw)
        return embed(ids, pixel_values, image_grid_thw)

    monkeypatch.setattr(backbone, "embed", counting)
    return counts


def test_questions_about_one_picture_read_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = load("tiny")
    images = [photo(i // 4).copy() for i in range(8)]
    texts = [f"question {i}?" for i in range(8)]
    counts = counted(pipe, monkeypatch)
    shared = pipe.ask_batch(images, texts, max_new_tokens=2)
    few = dict(counts)
    counts.update(pictures=0, tokens=0)
    assert pipe.ask_batch(images, texts, max_new_tokens=2, share_pictures=False) == shared
    assert (few["pictures"], counts["pictures"]) == (2, 8)
    assert few["tokens"] < counts["tokens"]


def test_single_token_choices_cost_one_reading_of_the_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pipe = load("tiny")
    counts = counted(pipe, monkeypatch)
    pipe.score_choices([photo(0)], ["which?"], ["A", "B", "C", "D"])
    alone = counts["tokens"]
    counts["tokens"] = 0
    pipe.score_choices([photo(0)], ["which?"], ["A"])
    assert counts["tokens"] == alone


def test_a_batch_that_does_not_fit_is_made_in_smaller_ones(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    pipe = load("tiny")
    images, texts = asked("tiny")
    wanted = pipe.ask_batch(images, texts, max_new_tokens=6)
    backbone, forward = pipe.model.backbone, pipe.model.backbone.forward
    sizes: list[int] = []

    def small_machine(embeddings: torch.Tensor, mask: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        sizes.append(mask.numel())
        if mask.numel() > 150:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return forward(embeddings, mask, *args, **kwargs)

    monkeypatch.setattr(backbone, "forward", small_machine)
    monkeypatch.setattr(pipe._answers, "budget", Budget(lambda: 10_000))
    assert pipe.ask_batch(images, texts, max_new_tokens=6) == wanted
    assert max(sizes) > 150 and "do not fit into memory" in caplog.text
    failures, before = pipe._answers.budget.num_backoffs, len(sizes)
    assert pipe.ask_batch(images, texts, max_new_tokens=6) == wanted
    assert max(sizes[before:]) <= 150, "the size that fitted was not kept"
    assert pipe._answers.budget.num_backoffs == failures > 0


def test_one_question_that_does_not_fit_alone_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = load("tiny")

    def none_left(*args: Any, **kwargs: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(pipe.model.backbone, "forward", none_left)
    monkeypatch.setattr(pipe._answers, "budget", Budget(lambda: 10_000))
    with pytest.raises(MemoryError):
        pipe.ask_batch([None, None], ["a", "b"])


def prompt(length: int, key: object) -> Prompt:
    return Prompt(tuple(range(length)), 1, (), (key,))


def test_batches_keep_pictures_together_and_lengths_apart() -> None:
    prompts = [prompt(n, k) for n, k in ((5, "a"), (50, "b"), (6, "c"), (7, "a"), (48, "d"))]
    order = arrange(prompts, [1] * 5, Batching())
    assert order == [1, 4, 0, 3, 2]
    assert arrange(prompts, [1] * 5, Batching(by_length=False)) == [0, 3, 1, 2, 4]
    sizes = [6, 51, 7, 8, 49]
    assert cut(order, 0, sizes, None, 102) == [1, 4]
    assert cut(order, 2, sizes, None, 102) == [0, 3, 2]
    assert cut(order, 0, sizes, 3, None) == [1, 4, 0]
    assert cut(order, 0, sizes, None, 10) == [1], "one question always goes"


def test_pixels_are_bounded_as_asked() -> None:
    big = photo(3, 400, 300)

    def count(**bounds: int) -> int:
        pipe = Blip3oPipeline.from_pretrained("tiny")
        pipe.understanding = type(pipe.understanding)(min_pixels=16 * 16, max_pixels=10**6)
        pipe.set_pixels(**bounds)
        return pipe.inputs.picture_tokens(big)

    assert count() == 25 * 19 and count(max_pixels=64 * 64) <= 16 < count(max_pixels=128 * 128)
    assert count(min_pixels=600 * 600, max_pixels=10**6) > count()
    with pytest.raises(ConfigError, match="min_pixels 99 must not exceed max_pixels 50"):
        count(min_pixels=99, max_pixels=50)
    with pytest.raises(ConfigError, match="square of 32 px"):
        Blip3oPipeline.from_pretrained("tiny", max_pixels=1000)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1}, "temperature must be"),
        ({"temperature": float("nan")}, "temperature must be"),
        ({"top_p": 0}, "top_p must be"),
        ({"top_k": 0}, "top_k must be at least 1"),
        ({"batch_size": 0}, "batch size must be auto"),
        ({"max_new_tokens": [1, 2, 3]}, "2 questions need one max_new_tokens or 2, got 3"),
        ({"stop": [["a"], "b", "c"]}, "stop must be"),
        ({"temperature": 1, "generator": [torch.Generator()]}, "2 questions need one generator each"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load("tiny").ask_batch([None, None], ["a", "b"], **settings)


@pytest.mark.parametrize("choices", ["A", [], ["A", ""], [["A"]], [["A"], []], [1, 2]])
def test_bad_choices_are_named(choices: Any) -> None:
    with pytest.raises(DataError, match="choices must be a list of texts"):
        load("tiny").score_choices([None, None], ["a", "b"], choices)


def test_pictures_need_a_tower() -> None:
    with pytest.raises(WeightsError, match="reads text only"):
        load("tiny-llama").score_choices([photo(0)], ["a"], ["A"])


def test_the_command_compares_choices_and_shows_several_pictures(tmp_path: Any) -> None:
    paths = []
    for number in range(2):
        paths.append(str(tmp_path / f"{number}.png"))
        photo(number).save(paths[-1])

    def ask(*more: str) -> Any:
        return CliRunner().invoke(main, ["ask", paths[0], "which?", "--model", "tiny", *more])

    lines = ask("--image", paths[1], "--choice", "yes", "--choice", "no").output.splitlines()
    rows = [(float(line.split()[0]), float(line.split()[1].rstrip("%")), line.split()[2]) for line in lines]
    assert {row[2] for row in rows} == {"yes", "no"} and rows[0][0] > rows[1][0]
    assert sum(row[1] for row in rows) == pytest.approx(100, abs=0.2)
    drawn = [ask("--temperature", "3", "--max-new-tokens", "6", "--seed", seed).output for seed in "778"]
    assert drawn[0] == drawn[1] != drawn[2]
    alone = ask("--choice", "yes")
    assert alone.exit_code == 2 and "one --choice is compared with nothing" in alone.output


def test_a_picture_that_cannot_be_written_is_said_before_it_is_drawn(tmp_path: Any) -> None:
    photo(0).save(tmp_path / "a.png")
    for output, message in (("x.gift", "cannot be written as .gift"), ("no/x.png", "does not exist; make it")):
        asked = ["edit", str(tmp_path / "a.png"), "red", "--model", "no such model", "-o", str(tmp_path / output)]
        found = CliRunner().invoke(main, asked)
        assert found.exit_code == 1 and message in found.output
