"""Models that answer in text as judges: how answers are read, what a run makes of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import evals
from evals.api import AnswerRequest, Identity, ModelOptions, ProbabilityJudge, QuestionJudge
from evals.errors import UnknownNameError, UsageError
from evals.judges.parse import UnreadableAnswerError, yes_or_no
from evals.judges.vlm import PROMPT, ScoringVlmJudge, VlmJudge, create
from evals.models.dummy import DummyModel


@pytest.mark.parametrize("text", ["yes", "Yes", " YES. ", "**Yes**", '"yes"', "yes!\n", "(Yes)"])
def test_yes_is_yes_however_it_is_written(text: str) -> None:
    assert yes_or_no(text) == "yes"


@pytest.mark.parametrize("text", ["no", "No.", " no\n"])
def test_no_is_no(text: str) -> None:
    assert yes_or_no(text) == "no"


@pytest.mark.parametrize("text", ["", "yes and no", "Yes, but it is blue", "yesterday", "not", "yes yes", "1", "да"])
def test_anything_beside_it_is_no_answer(text: str) -> None:
    with pytest.raises(UnreadableAnswerError, match="is neither yes nor no"):
        yes_or_no(text)


class Fake:
    """An Answerer that says what it is told, and remembers what it was asked."""

    identity = Identity("fake", "3", "f" * 64, "photos", settings={"dtype": "float32"}, batch_size=4)

    def __init__(self, says: Any = "Yes.") -> None:
        self.says, self.asked, self.sizes = says, [], []

    def load(self) -> None: ...

    def close(self) -> None: ...

    def answer(self, requests: Sequence[AnswerRequest]) -> Sequence[Any]:
        self.asked += requests
        self.sizes.append(len(requests))
        return [self.says(r) if callable(self.says) else self.says for r in requests]


def test_it_asks_in_batches_of_the_model_and_reads_yes_and_no() -> None:
    fake = Fake(lambda r: "No" if "dog" in r.prompt else "Yes.")
    judge = VlmJudge(fake, "fake")
    picture = Image.new("L", (8, 8))
    answers = judge.ask([picture] * 6, ["Is it a cat?"] * 5 + ["Is it a dog?"])
    assert answers == ["yes"] * 5 + ["no"] and fake.sizes == [4, 2]
    assert fake.asked[0].prompt == "Is it a cat?\nAnswer with yes or no only."
    assert fake.asked[0].images[0].mode == "RGB"
    assert len({id(r.images[0]) for r in fake.asked}) == 1  # one picture object, however many questions


def test_what_cannot_be_read_and_what_fails_stand_in_place_of_the_answer() -> None:
    def says(request: AnswerRequest) -> Any:
        return RuntimeError("no memory") if "dog" in request.prompt else "It is a cat."

    judge = VlmJudge(Fake(says), "fake")
    unread, failed = judge.ask([Image.new("RGB", (8, 8))] * 2, ["Is it a cat?", "Is it a dog?"])
    assert isinstance(unread, UnreadableAnswerError) and "'It is a cat.'" in str(unread)
    assert isinstance(failed, RuntimeError)


def test_model_prompt_and_settings_are_part_of_what_the_judge_is() -> None:
    judge = create("dummy:size=32", ModelOptions())
    assert isinstance(judge, QuestionJudge) and judge.identity.is_test_double
    assert judge.identity.name == "vlm:dummy:size=32" and judge.identity.settings["prompt"] == PROMPT
    assert judge.identity.settings["model"] == {"size": 32}
    other = create("dummy", ModelOptions(extra={"prompt": "{question}"}))
    assert other.identity.settings["prompt"] == "{question}"


def test_bad_requests_are_one_line() -> None:
    with pytest.raises(UsageError, match="needs a model: vlm:MODEL"):
        create("", ModelOptions())
    with pytest.raises(UnknownNameError, match="Did you mean: dummy|nano"):
        create("nanu", ModelOptions())
    with pytest.raises(UsageError, match="answers no questions"):
        create("copy-source", ModelOptions())
    with pytest.raises(UsageError, match="judge.args.prompt = 'Answer!': give a text with {question}"):
        create("dummy", ModelOptions(extra={"prompt": "Answer!"}))


def run_with(judge: Any, folder: Path, **settings: Any) -> Any:
    return evals.evaluate(
        "dpg_stickers", DummyModel(), judge=judge, output=folder, limit=8, num_images=1,
        report=False, quiet=True, tracking__enabled=False, **settings,
    )  # fmt: skip


def test_a_run_counts_what_could_not_be_read_and_gives_no_overall(tmp_path: Path) -> None:
    def says(request: AnswerRequest) -> str:
        return "maybe" if "background pale blue" in request.prompt else "yes"

    run = run_with(VlmJudge(Fake(says), "fake"), tmp_path / "run")
    counts, overall = run.results["counts"], run.results["metrics"]["overall"]
    assert 0 < counts["unscored"] == counts["failed"] < 8
    assert "unscored" in str(run.problem) or "failed" in str(run.problem)
    assert overall["value"] is None and "at most 5% may" in overall["note"]
    scores = (tmp_path / "run" / "scores.jsonl").read_text()
    assert "the judge's answer 'maybe' is neither yes nor no" in scores
    assert run.results["judge"]["name"] == "vlm:fake"


def test_nano_can_be_asked_about_its_own_world(tmp_path: Path) -> None:
    judge = create("nano", ModelOptions(device="cpu"))
    assert judge.identity.settings["prompt"] == "{question}" and judge.identity.domain == "stickers"
    judge.load()
    answers = judge.ask([Image.new("RGB", (64, 64), (244, 234, 208))] * 2, ["Is there a cat in the picture?"] * 2)
    assert answers[0] == answers[1] and answers[0] in ("yes", "no")


class Likely(Fake):
    """Also says how likely its answers are."""

    def log_likelihoods(self, requests: Sequence[AnswerRequest], continuations: Sequence[str]) -> Sequence[Any]:
        self.asked += requests
        self.sizes.append(len(requests))
        known = {"Yes": -0.5, "No": -2.0}
        pairs = zip(requests, continuations, strict=True)
        return [RuntimeError("lost") if "dog" in r.prompt else known[c] for r, c in pairs]


def test_probabilities_of_models_that_give_them() -> None:
    fake = Likely()
    judge = ScoringVlmJudge(fake, "fake")
    assert isinstance(judge, ProbabilityJudge) and not isinstance(VlmJudge(Fake(), "fake"), ProbabilityJudge)
    picture = Image.new("RGB", (8, 8))
    found = judge.probability([picture] * 5, ["Is it a cat?"] * 4 + ["Is it a dog?"], "Yes")
    assert found[:4] == pytest.approx([math.exp(-0.5)] * 4) and isinstance(found[4], RuntimeError)
    assert fake.sizes == [4, 1] and fake.asked[0].prompt == "Is it a cat?"
    own = ScoringVlmJudge(fake, "fake", "Look. {question}")
    own.probability([picture], ["Is it a cat?"], "No")
    assert fake.asked[-1].prompt == "Look. Is it a cat?"
