"""The adapter around the real pipeline, with the ``tiny`` random weights: real code, no meaning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import evals
from evals.api import AnswerRequest, GenerationRequest, ModelOptions, cut_at
from evals.errors import ConfigMismatchError, ModelError, UsageError
from evals.models.blip3o import Blip3oAdapter, create_blip3o, create_nano, create_tiny
from evals.results import comparable


@pytest.fixture(scope="module")
def tiny() -> Blip3oAdapter:
    model = create_tiny("", ModelOptions(device="cpu"))
    model.load()
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from blip3o.pipeline import Blip3oPipeline

    folder = tmp_path_factory.mktemp("weights") / "saved-tiny"
    Blip3oPipeline.from_pretrained("tiny").save_pretrained(folder)
    return folder


def requests(count: int, series: bool = False) -> list[GenerationRequest]:
    prompts = ["a photo of a dog", "a photo of two red cups and a very long bench", "a cat"]
    return [
        GenerationRequest(
            f"s{i // 4}", i % 4, prompts[i // 4 % 3], 42 if series else 1000 + i, series, steps=2
        )
        for i in range(count)
    ]


def pixels(images: list) -> np.ndarray:
    return np.stack([np.asarray(image, dtype=np.int16) for image in images])


def test_pictures_do_not_depend_on_the_batch_size(tiny: Blip3oAdapter) -> None:
    every = requests(14)
    by_size = {}
    for size in (1, 7, 14):
        images = [
            i for start in range(0, 14, size) for i in tiny.generate(every[start : start + size])
        ]
        by_size[size] = pixels(images)
    assert np.abs(by_size[1] - by_size[7]).max() <= 3
    assert np.abs(by_size[1] - by_size[14]).max() <= 3
    assert len({image.tobytes() for image in by_size[1]}) == 14


def test_another_seed_is_another_picture(tiny: Blip3oAdapter) -> None:
    one, two = (tiny.generate([GenerationRequest("s", 0, "a dog", seed)])[0] for seed in (1, 2))
    assert one.tobytes() != two.tobytes()


def test_upstream_seeds_draw_the_pictures_of_a_prompt_from_one_generator(
    tiny: Blip3oAdapter,
) -> None:
    pictures = pixels(list(tiny.generate(requests(8, series=True))))
    assert len({p.tobytes() for p in pictures[:4]}) == 4
    first = pixels(
        list(tiny.generate([GenerationRequest("s", 0, "a photo of a dog", 42, steps=2)]))
    )
    assert np.array_equal(pictures[0], first[0])
    again = pixels(list(tiny.generate(requests(8, series=True)[4:])))
    assert np.array_equal(pictures[4:], again)


def test_questions_get_texts(tiny: Blip3oAdapter) -> None:
    picture = tiny.generate(requests(1))[0]
    asked = [
        AnswerRequest("q", "what is it?", 0, (picture,), 3),
        AnswerRequest("r", "and now?", 0, (), 3),
    ]
    answers = tiny.answer(asked)
    assert len(answers) == 2 and all(isinstance(answer, str) for answer in answers)


def test_identity_is_read_without_loading_and_names_what_changes_pictures(saved: Path) -> None:
    plain = create_blip3o(str(saved), ModelOptions()).identity
    fewer = create_blip3o(str(saved), ModelOptions(steps=3)).identity
    assert plain.name == "saved-tiny" and plain.is_test_double and len(plain.digest) == 64
    own = json.loads((saved / "blip3o.json").read_text())["num_inference_steps"]
    assert plain.settings["num_inference_steps"] == own != 3
    assert fewer.settings["num_inference_steps"] == 3
    assert plain.settings["dtype"] == "float32" and plain.digest == fewer.digest


def test_a_folder_runs_resumes_and_is_refused_when_its_weights_changed(
    saved: Path, tmp_path: Path, fruit
) -> None:
    settings = {
        "judge": "dummy",
        "limit": 3,
        "quiet": True,
        "report": False,
        "tracking__enabled": False,
    }
    first = evals.evaluate(
        fruit, str(saved), output=tmp_path / "a", generation__steps=2, **settings
    )
    second = evals.evaluate(
        fruit, str(saved), output=tmp_path / "b", generation__steps=2, shard=(0, 1), **settings
    )
    assert first.results["is_test_double"] and comparable(first.root) == comparable(second.root)
    card = (saved / "blip3o.json").read_bytes()
    (saved / "blip3o.json").write_text(json.dumps({**json.loads(card), "version": "2"}))
    try:
        with pytest.raises(
            ConfigMismatchError, match="model.version: recorded .* model.weights_sha256"
        ):
            evals.evaluate(
                fruit, str(saved), output=tmp_path / "a", generation__steps=2, **settings
            )
    finally:
        (saved / "blip3o.json").write_bytes(card)


def test_shortened_weights_are_one_line(saved: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(saved, tmp_path / "weights")
    path = tmp_path / "weights" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    model = create_blip3o(str(tmp_path / "weights"), ModelOptions())
    with pytest.raises(ModelError, match="cannot be loaded: .*model.safetensors") as caught:
        model.load()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"height": 1000}, "height 1000 is not allowed: model 'saved-tiny' makes pictures of"),
        (
            {"extra": {"compta": "released"}},
            "unknown key 'model.args.compta'. Did you mean: compat",
        ),
        ({"extra": {"compat": "old"}}, "default or released"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_loading(
    saved: Path, options: dict, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        create_blip3o(str(saved), ModelOptions(**options))


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no config.json"):
        create_blip3o(str(tmp_path), ModelOptions())


def test_a_device_that_is_not_there_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(UsageError, match="no CUDA device is available.*--device cpu"):
        create_tiny("", ModelOptions(device="cuda")).load()


def test_answers_end_before_the_first_stop_string() -> None:
    assert cut_at("yes\n\nbecause", ("\n\n",)) == "yes"
    assert cut_at("a END b STOP", ("STOP", "", "END")) == "a "
    assert cut_at("all of it", ()) == "all of it"


def test_the_adapter_hands_on_what_each_request_says() -> None:
    model = create_tiny("", ModelOptions(extra={"temperature": 0.5, "by_length": False}))
    calls = []

    class Pipeline:
        def ask_batch(self, images: object, questions: list[str], **settings: Any) -> list[str]:
            calls.append((questions, settings))
            return [f"to {question}" for question in questions]

    model._pipeline = Pipeline()
    asked = [
        AnswerRequest("1", "a", 1, (), 16, ("END", "")),
        AnswerRequest("2", "b", 2, (), None, (), sampling={"temperature": 0.0}),
        AnswerRequest("3", "c", 3, (), 4),
    ]
    assert model.answer(asked) == ["to a", "to b", "to c"]
    (first, settings), (second, others) = calls
    assert first == ["a", "c"] and second == ["b"]
    assert settings["stop"] == [("END",), ()] and settings["max_new_tokens"] == [16, 4]
    assert [g.initial_seed() for g in settings["generator"]] == [1, 3]
    assert (settings["temperature"], others["temperature"], settings["by_length"]) == (0.5, 0.0, False)
    assert model.identity.settings["temperature"] == 0.5 and "by_length" not in model.identity.settings


def test_answers_are_drawn_by_their_seed_and_likelihoods_read_a_prompt_once(tiny: Any) -> None:
    model = create_tiny("", ModelOptions(device="cpu", extra={"temperature": 2.0}))
    model.load()
    asked = [AnswerRequest(str(i), "what is it?", 5 + i % 2, (), 6, ("zz",)) for i in range(4)]
    texts = model.answer(asked)
    assert texts[0] == texts[2] != texts[1] == texts[3] == model.answer(asked[1:2])[0]
    pictures: tuple[Any, ...] = (Image.new("RGB", (32, 32), "red"),)
    pairs = [(AnswerRequest(s, "which?", 1, pictures), c) for s in "ab" for c in ("A", "B, or so", "C")]
    values = model.log_likelihoods([r for r, _ in pairs], [c for _, c in pairs])
    assert len(values) == 6 and all(value < 0 for value in values)
    assert values[:3] == pytest.approx(values[3:], abs=1e-4)
    alone = [model.log_likelihoods([r], [c])[0] for r, c in pairs]
    assert values == pytest.approx(alone, abs=1e-4)


def test_a_revision_is_refused_where_there_are_none(saved: Path) -> None:
    for create, spec in ((create_tiny, ""), (create_nano, ""), (create_blip3o, str(saved))):
        with pytest.raises(UsageError, match="has no revisions, got --revision abc: only hub ids"):
            create(spec, ModelOptions(revision="abc"))
