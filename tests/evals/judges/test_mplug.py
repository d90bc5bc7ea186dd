"""mPLUG as judge, against what modelscope's own code gave on the same synthetic weights.

`tests/golden/mplug/recorded.json` was recorded with modelscope/modelscope's `models/multi_modal/mplug` (commit in the
file) on weights that `tensors_of` makes: names and shapes of the published checkpoint, sizes reduced, numbers from a
seed. Two settings of `stride_layer`: question and picture attend to each other in the third fusion layer, or never.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evals.api import ModelOptions, ProbabilityJudge, QuestionJudge
from evals.errors import InputError, JudgeError, MissingRequirementError, UsageError
from evals.judges import mplug
from evals.judges.mplug import create
from evals.judges.mplug_files import Sizes

RECORDED = Path(__file__).parents[2] / "golden" / "mplug" / "recorded.json"
WORDS = ["is", "there", "a", "cat", "dog", "the", "red", "yes", "no", "large", "very", "color", "what", "it", "?",
         "left", "right", "of", "small", "two", "three", "green", "blue", "##s", "on", "or", "in", "table"]  # fmt: skip
VOCABULARY = ["[PAD]", *(f"[unused{n}]" for n in range(99)), "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
TINY = Sizes(
    image_size=32, patch_size=8, vision_width=128, vision_layers=2, hidden_size=64, num_heads=4, intermediate_size=96,
    vocab_size=len(VOCABULARY), max_positions=40, memory_width=64, text_layers=2, bert_layers=4, fusion_layers=3,
    stride=2, decoder_layers=2,
)  # fmt: skip
QUESTIONS = [
    "is there a cat?",
    "Is the very large dog red?",
    "what color is it?",
    "is the small red cat left of the very large green dog on the table or in the two three blue tables right of it?",
]


def shapes_of(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published checkpoint, by hand."""
    d, v, inner, words = sizes.hidden_size, sizes.vision_width, sizes.intermediate_size, sizes.vocab_size
    found: dict[str, tuple[int, ...]] = {}

    def linear(name: str, out: int, into: int) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = (out, into), (out,)

    def norm(name: str, width: int) -> None:
        found[f"{name}.weight"] = found[f"{name}.bias"] = (width,)

    def attention(name: str, source: int) -> None:
        linear(f"{name}.self.query", d, d)
        linear(f"{name}.self.key", d, source)
        linear(f"{name}.self.value", d, source)
        linear(f"{name}.output.dense", d, d)
        norm(f"{name}.output.LayerNorm", d)

    def layers(name: str, count: int, crosses: bool) -> None:
        for n in range(count):
            attention(f"{name}.encoder.layer.{n}.attention", d)
            if crosses:
                attention(f"{name}.encoder.layer.{n}.crossattention", sizes.memory_width)
            linear(f"{name}.encoder.layer.{n}.intermediate.dense", inner, d)
            linear(f"{name}.encoder.layer.{n}.output.dense", d, inner)
            norm(f"{name}.encoder.layer.{n}.output.LayerNorm", d)

    def embeddings(name: str) -> None:
        found[f"{name}.word_embeddings.weight"] = (words, d)
        found[f"{name}.position_embeddings.weight"] = (sizes.max_positions, d)
        found[f"{name}.token_type_embeddings.weight"] = (sizes.token_types, d)
        norm(f"{name}.LayerNorm", d)

    eye = "visual_encoder.visual"
    found[f"{eye}.class_embedding"] = (v,)
    found[f"{eye}.positional_embedding"] = ((sizes.image_size // sizes.patch_size) ** 2 + 1, v)
    found[f"{eye}.conv1.weight"] = (v, 3, sizes.patch_size, sizes.patch_size)
    norm(f"{eye}.ln_pre", v)
    norm(f"{eye}.ln_post", v)
    for n in range(sizes.vision_layers):
        block = f"{eye}.transformer.resblocks.{n}"
        found[f"{block}.attn.in_proj_weight"], found[f"{block}.attn.in_proj_bias"] = (3 * v, v), (3 * v,)
        linear(f"{block}.attn.out_proj", v, v)
        norm(f"{block}.ln_1", v)
        norm(f"{block}.ln_2", v)
        linear(f"{block}.mlp.c_fc", 4 * v, v)
        linear(f"{block}.mlp.c_proj", v, 4 * v)
    if v != d:
        linear("visn_fc", d, v)
        norm("visn_layer_norm", d)
    embeddings("text_encoder.embeddings")
    layers("text_encoder", sizes.text_layers, crosses=False)
    layers("fusion_encoder", sizes.bert_layers, crosses=True)
    embeddings("text_decoder.bert.embeddings")
    layers("text_decoder.bert", sizes.decoder_layers, crosses=True)
    head = "text_decoder.cls.predictions"
    found[f"{head}.bias"] = (words,)
    linear(f"{head}.transform.dense", d, d)
    norm(f"{head}.transform.LayerNorm", d)
    found[f"{head}.decoder.weight"] = (words, d)
    return found


def tensors_of(sizes: Sizes, seed: int) -> dict[str, Any]:
    """Numbers for the names: wide enough that pictures and questions decide answers of different lengths."""
    import torch

    draw = np.random.RandomState(seed)
    found = {}
    for name, shape in sorted(shapes_of(sizes).items()):
        numbers = draw.standard_normal(shape)
        is_norm = ("LayerNorm" in name or ".ln_" in name or "layer_norm" in name) and name.endswith("weight")
        scale = 1.0 if "embeddings.weight" in name else 0.1 if len(shape) == 1 else 1.6 / np.sqrt(np.prod(shape[1:]))
        found[name] = torch.tensor((1.0 if is_norm else 0.0) + scale * numbers, dtype=torch.float32)
    bias = found["text_decoder.cls.predictions.bias"]
    bias[:101] -= 12.0  # real words, please
    bias[102] += 2.0  # that end
    return found


def write_folder(folder: Path, sizes: Sizes, seed: int) -> Path:
    """The files as ModelScope hands them out, tensors as a pickle below "model"."""
    import torch
    import yaml

    folder.mkdir(parents=True)
    top = {
        "task": "visual-question-answering", "bert_config": "config_bert.json", "image_res": sizes.image_size,
        "vision_width": sizes.vision_width, "clip_vision_width": sizes.vision_width,
        "clip_vision_layers": sizes.vision_layers, "clip_vision_patch_size": sizes.patch_size, "beam_size": 5,
        "min_length": 1, "max_length": 6, "optimizer": {"opt": "adamW"},
    }  # fmt: skip
    bert = {
        "hidden_act": "gelu", "hidden_size": sizes.hidden_size, "num_attention_heads": sizes.num_heads,
        "intermediate_size": sizes.intermediate_size, "vocab_size": sizes.vocab_size, "layer_norm_eps": sizes.eps,
        "max_position_embeddings": sizes.max_positions, "type_vocab_size": sizes.token_types,
        "encoder_width": sizes.memory_width, "num_hidden_layers": sizes.bert_layers, "pad_token_id": 0,
        "text_encoder_layers": sizes.text_layers, "fusion_layers": sizes.fusion_layers, "stride_layer": sizes.stride,
        "text_decode_layers": sizes.decoder_layers, "add_cross_attention": False, "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump(top))
    (folder / "config_bert.json").write_text(json.dumps(bert))
    (folder / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    tensors = tensors_of(sizes, seed)
    # What the published file holds besides: CLIP's side for texts, and the copies of distillation.
    tensors["visual_encoder.token_embedding.weight"] = torch.zeros(3, 4)
    tensors["visual_encoder.visual.proj"] = torch.zeros(sizes.vision_width, 4)
    tensors["text_encoder_m.embeddings.word_embeddings.weight"] = torch.zeros(2, 2)
    tensors["text_encoder.embeddings.position_ids"] = torch.arange(sizes.max_positions)[None]
    tensors["text_decoder.cls.predictions.decoder.bias"] = tensors["text_decoder.cls.predictions.bias"]
    torch.save({"model": tensors}, folder / "pytorch_model.bin")
    return folder


def pictures() -> list[Image.Image]:
    draw = np.random.RandomState(7)
    sizes = [(32, 32), (50, 40), (20, 64)]
    return [Image.fromarray(draw.randint(0, 256, (h, w, 3)).astype(np.uint8)) for w, h in sizes]


def cases() -> list[dict[str, Any]]:
    return json.loads(RECORDED.read_text())["cases"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("mplug") / "tiny", TINY, seed=1)


@pytest.fixture(scope="module")
def judge(folder: Path) -> Any:
    judge = create(str(folder), ModelOptions(device="cpu"))
    judge.load()
    return judge


@pytest.mark.parametrize("case", cases(), ids=lambda case: f"stride {case['stride']}, seed {case['seed']}")
def test_answers_and_probabilities_are_those_of_modelscopes_code(case: dict[str, Any], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "tiny", replace(TINY, stride=case["stride"]), case["seed"])
    judge = create(str(folder), ModelOptions(device="cpu"))
    pairs = [(picture, question) for picture in pictures() for question in QUESTIONS]
    images, questions = [p for p, _ in pairs], [q for _, q in pairs]
    assert judge.ask(images, questions) == case["answers"]
    assert judge.probability(images, questions, "Yes") == pytest.approx(case["yes"], rel=1e-4)
    assert judge.probability(images, questions, "very large") == pytest.approx(case["very large"], rel=1e-3)


def test_what_was_recorded_says_something() -> None:
    for case in cases():
        assert len(set(case["answers"])) > 3 and max(case["yes"]) > 3 * min(case["yes"])
    assert len({len(answer.split()) for case in cases() for answer in case["answers"]}) > 2
    same = zip(*[case["answers"] for case in cases() if case["seed"] == 1], strict=True)
    assert any(a != b for a, b in same)  # the stride matters


def test_an_answer_does_not_depend_on_what_is_asked_beside_it(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [picture for picture in pictures() for _ in QUESTIONS]
    together = judge.ask(images, QUESTIONS * 3)
    monkeypatch.setattr(mplug, "QUESTIONS", 3)
    monkeypatch.setattr(mplug, "PICTURES", 1)
    assert judge.ask(images, QUESTIONS * 3) == together


def test_each_picture_passes_the_vision_tower_once(judge: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, see = [], judge._model.see
    monkeypatch.setattr(judge._model, "see", lambda pixels: seen.append(len(pixels)) or see(pixels))
    first, second, _ = pictures()
    judge.ask([first, second, first, second, first], ["is it red ?"] * 5)
    assert seen == [2]


def test_the_published_sizes_take_the_published_names() -> None:
    import torch

    from evals.judges.mplug_network import Mplug

    with torch.device("meta"):
        network = Mplug(Sizes())
    own = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert own == shapes_of(Sizes())
    assert 590e6 < sum(tensor.numel() for tensor in network.state_dict().values()) < 660e6


def test_it_is_a_judge_whose_settings_are_part_of_what_it_is(folder: Path) -> None:
    plain = create(str(folder), ModelOptions())
    longer = create(str(folder), ModelOptions(extra={"max_question_tokens": 35}))
    assert isinstance(plain, QuestionJudge) and isinstance(plain, ProbabilityJudge)
    assert plain.identity.name == "mplug:tiny" and plain.identity.domain == "photos"
    assert plain.identity.settings["max_question_tokens"] == 25
    assert longer.identity.settings["max_question_tokens"] == 35
    assert plain.identity.digest == longer.identity.digest


def test_weights_as_safetensors_and_under_other_prefixes_are_the_same(folder: Path, tmp_path: Path, judge: Any) -> None:
    from safetensors.torch import save_file

    for name in ("config.yaml", "config_bert.json", "vocab.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    tensors = tensors_of(TINY, seed=1)
    tensors.pop("text_decoder.cls.predictions.decoder.weight")
    tensors["text_decoder.bert.embeddings.word_embeddings.weight"] = tensors_of(TINY, 1)[
        "text_decoder.cls.predictions.decoder.weight"
    ]
    save_file({f"module.{name}": tensor for name, tensor in tensors.items()}, tmp_path / "model.safetensors")
    tied = create(str(tmp_path), ModelOptions(device="cpu"))
    tied.load()
    ours, theirs = tied._model.state_dict(), judge._model.state_dict()
    changed = {name for name in ours if not ours[name].equal(theirs[name])}
    assert changed == {"text_decoder.bert.embeddings.word_embeddings.weight"}


class Trap:
    def __reduce__(self) -> Any:
        return (print, ("a pickle ran code",))


def test_what_is_missing_or_does_not_fit_is_one_line(folder, tmp_path, capsys, monkeypatch) -> None:
    import torch

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingRequirementError, match="hf download diffusion-bench/mplug_visual"):
        create("", ModelOptions())
    with pytest.raises(MissingRequirementError, match=r"missing: config.yaml, config_bert.json, vocab.txt, model.saf"):
        create(str(tmp_path), ModelOptions())
    with pytest.raises(UsageError, match="max_question_tokens = 2: give at least 3"):
        create(str(folder), ModelOptions(extra={"max_question_tokens": 2}))
    for name in ("config.yaml", "config_bert.json", "vocab.txt"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    weights = tmp_path / "pytorch_model.bin"

    def load(tensors: Any) -> None:
        torch.save(tensors, weights)
        create(str(tmp_path), ModelOptions(device="cpu")).load()

    tensors = tensors_of(TINY, 1)
    with pytest.raises(JudgeError, match="lacks 1 weights of mPLUG's VQA network, the first is visn_fc.bias"):
        load({name: tensor for name, tensor in tensors.items() if name != "visn_fc.bias"})
    with pytest.raises(JudgeError, match="holds 1 weights that mPLUG's VQA network does not have, the first is other"):
        load({**tensors, "other.weight": torch.zeros(1)})
    with pytest.raises(JudgeError, match=r"visn_fc.bias has shape \(2,\), config.yaml and config_bert.json make"):
        load({**tensors, "visn_fc.bias": torch.zeros(2)})
    with pytest.raises(InputError, match="is not a checkpoint of plain tensors"):
        load({"model": Trap()})
    assert "ran code" not in capsys.readouterr().out
    (tmp_path / "config.yaml").write_text("task: image-captioning\n")
    with pytest.raises(UsageError, match="is mPLUG for 'image-captioning'; the judge needs the one for"):
        create(str(tmp_path), ModelOptions())
