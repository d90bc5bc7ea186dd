"""BLIP-VQA as judge, with tiny random weights built from a configuration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from evals.api import ModelOptions, ProbabilityJudge, QuestionJudge
from evals.errors import JudgeError, MissingRequirementError, UsageError
from evals.judges import blip_vqa
from evals.judges.blip_vqa import create

QUESTIONS = ["is there a cat ?", "is the very large dog red ?", "what color is it ?"]
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "[MASK]", "yes", "no", "red", "is", "the", "there", "a", "cat", "dog",
         "large", "very", "what", "color", "it", "?"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForQuestionAnswering,
        BlipImageProcessorPil,
        BlipTextConfig,
        BlipVisionConfig,
    )

    path = tmp_path_factory.mktemp("blip")
    text = BlipTextConfig(
        vocab_size=len(WORDS), hidden_size=32, encoder_hidden_size=32, intermediate_size=48, projection_dim=16,
        num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=24, bos_token_id=1, eos_token_id=2,
        pad_token_id=0, sep_token_id=2, initializer_range=0.6,
    )  # fmt: skip
    vision = BlipVisionConfig(
        hidden_size=32, intermediate_size=48, projection_dim=16, num_hidden_layers=2, num_attention_heads=4,
        image_size=32, patch_size=8, initializer_range=0.6,
    )  # fmt: skip
    torch.manual_seed(0)
    config = BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict())
    BlipForQuestionAnswering(config).eval().save_pretrained(path)
    BlipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(path)
    (path / "vocab.txt").write_text("\n".join(WORDS))
    BertTokenizer(str(path / "vocab.txt")).save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def judge(folder: Path):
    judge = create(str(folder), ModelOptions(device="cpu"))
    judge.load()
    return judge


def pictures(count: int) -> list[Image.Image]:
    draw = np.random.default_rng(1)
    return [Image.fromarray(draw.integers(0, 255, (40, 56, 3), np.uint8)) for _ in range(count)]


def test_answers_are_those_of_the_library_for_one_question_at_a_time(judge, folder: Path) -> None:
    from transformers import AutoTokenizer, BlipForQuestionAnswering, BlipImageProcessorPil

    model = BlipForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), BlipImageProcessorPil.from_pretrained(folder)
    images = pictures(4)
    pairs = [(image, question) for image in images for question in QUESTIONS]
    answers = judge.ask([i for i, _ in pairs], [q for _, q in pairs])
    for (image, question), answer in zip(pairs, answers, strict=True):
        new = model.generate(
            input_ids=tokenizer(question, return_tensors="pt").input_ids,
            pixel_values=processor(image, return_tensors="pt").pixel_values,
            num_beams=3,
            max_new_tokens=10,
        )
        assert answer == tokenizer.decode(new[0], skip_special_tokens=True).strip()
    assert len(set(answers)) > 2  # random weights, but they look at picture and question


def test_an_answer_does_not_depend_on_what_is_asked_beside_it(judge, monkeypatch) -> None:
    images = [image for image in pictures(3) for _ in QUESTIONS]
    questions = QUESTIONS * 3
    together = judge.ask(images, questions)
    assert [judge.ask([i], [q])[0] for i, q in zip(images, questions, strict=True)] == together
    monkeypatch.setattr(blip_vqa, "QUESTIONS", 2)
    monkeypatch.setattr(blip_vqa, "PICTURES", 2)
    assert judge.ask(images, questions) == together


def test_probabilities_are_the_decoders_own(judge, folder: Path) -> None:
    """One question, one token at a time through the library's text decoder, against the judge's batch."""
    from transformers import AutoTokenizer, BlipForQuestionAnswering, BlipImageProcessorPil

    model = BlipForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer, processor = AutoTokenizer.from_pretrained(folder), BlipImageProcessorPil.from_pretrained(folder)
    pairs = [(image, question) for image in pictures(3) for question in QUESTIONS]
    for answer, words in (("Yes", ["yes"]), ("very large dog", ["very", "large", "dog"])):
        found = judge.probability([i for i, _ in pairs], [q for _, q in pairs], answer)
        for (image, question), one in zip(pairs, found, strict=True):
            with torch.no_grad():
                seen = model.vision_model(processor(image, return_tensors="pt").pixel_values)[0]
                asked = model.text_encoder(
                    **tokenizer(question, return_tensors="pt"), encoder_hidden_states=seen
                ).last_hidden_state
                ids, expected = [model.decoder_start_token_id], 1.0
                for word in words:
                    logits = model.text_decoder(torch.tensor([ids]), encoder_hidden_states=asked).logits
                    ids.append(WORDS.index(word))
                    expected *= float(logits[0, -1].softmax(-1)[ids[-1]])
            assert one == pytest.approx(expected, rel=1e-4)
        assert max(found) > 1.5 * min(found)


def test_each_picture_passes_the_vision_tower_once(judge, monkeypatch) -> None:
    seen = []
    tower = judge._model.vision_model.forward
    monkeypatch.setattr(
        judge._model.vision_model, "forward",
        lambda pixel_values, **rest: seen.append(len(pixel_values)) or tower(pixel_values, **rest),
    )  # fmt: skip
    first, second = pictures(2)
    judge.ask([first, second, first, second, first], ["is it red ?"] * 5)
    assert seen == [2]


def test_it_is_a_judge_whose_settings_are_part_of_what_it_is(folder: Path) -> None:
    plain = create(str(folder), ModelOptions())
    greedy = create(str(folder), ModelOptions(extra={"num_beams": 1}))
    assert isinstance(plain, QuestionJudge) and isinstance(plain, ProbabilityJudge)
    assert plain.identity.domain == "photos"
    assert plain.identity.name == f"blip-vqa:{folder.name}" and len(plain.identity.digest) == 64
    assert plain.identity.settings["num_beams"] == 3 and greedy.identity.settings["num_beams"] == 1


def test_pictures_in_other_modes_are_read(judge) -> None:
    grey = Image.new("L", (9, 70), 100)
    assert judge.ask([grey], ["is it red ?"]) == judge.ask([grey.convert("RGB")], ["is it red ?"])


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"num_beam": 2}, "unknown key 'judge.args.num_beam'. Did you mean: num_beams"),
        ({"num_beams": 0}, "judge.args.num_beams = 0: give a whole number from 1 to 100"),
        ({"num_beams": True}, "judge.args.num_beams = True: give a whole number"),
        ({"dtype": "int8"}, "judge.args.dtype = 'int8': give one of float32"),
    ],
)
def test_arguments_are_checked(folder: Path, extra, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        create(str(folder), ModelOptions(extra=extra))


def test_missing_and_unsuitable_weights_are_one_line(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingRequirementError, match="Salesforce/blip-vqa-capfilt-large"):
        create("", ModelOptions())
    with pytest.raises(UsageError, match="judge folder './nowhere' does not exist"):
        create("./nowhere", ModelOptions())
    with pytest.raises(MissingRequirementError, match="has no .safetensors file"):
        create(str(tmp_path), ModelOptions())
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(JudgeError, match="cannot be loaded from"):
        create(str(tmp_path), ModelOptions(device="cpu")).load()


def test_weights_that_lack_a_part_are_refused(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(folder / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if not k.startswith("text_decoder.bert.encoder.layer.1.")}
    save_file(kept, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(JudgeError, match=r"lacks \d+ weights, the first is text_decoder"):
        create(str(tmp_path), ModelOptions(device="cpu")).load()
