"""The fake judge reads what the fake model drew, so that all kinds of verdicts occur in tests."""

from __future__ import annotations

from evals.api import GenerationRequest
from evals.judges.dummy import DummyJudge
from evals.judges.dummy import _Arguments as JudgeArguments
from evals.models.dummy import DummyModel, read_prompt
from tasks.generation.geneval import GenEval


def draw(prompt: str, seed: int = 1) -> object:
    return DummyModel().generate([GenerationRequest("s", 0, prompt, seed)])[0]


def test_pictures_depend_on_seed_and_prompt_and_carry_the_prompt() -> None:
    assert draw("a photo of a cat").tobytes() == draw("a photo of a cat").tobytes()
    assert draw("a photo of a cat", seed=2).tobytes() != draw("a photo of a cat").tobytes()
    assert read_prompt(draw("a photo of a cat")) == "a photo of a cat"


def test_a_judge_that_is_always_right_accepts_all_official_prompts() -> None:
    from evals.api import Output, ScoreItem

    task, judge = GenEval(), DummyJudge(JudgeArguments(accuracy=1.0))
    samples = task.samples()
    items = [ScoreItem(s, Output(s.id, 0, 1), draw(s.prompt)) for s in samples]
    scores = task.score(items, judge)
    wrong = [
        (s.prompt, score.reason)
        for s, score in zip(samples, scores, strict=True)
        if score.value != 1
    ]
    assert wrong == []
