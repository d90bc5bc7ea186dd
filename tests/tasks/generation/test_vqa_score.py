"""VQAScore: the mean probability of "Yes", over all prompts and by group, whoever the judge is."""

import json

import numpy as np
import pytest

from evals import evaluate
from evals.api import Sample, Score, ScoreItem, ScoreRow
from evals.errors import UsageError
from evals.metrics.vqa_score import QUESTION, VqaScore
from tasks.generation.vqa_score import VqaScoreTask


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    prompts = ["a cat", "two dogs", "a red cup", 'a sign that says "stop"']
    rows = [{"id": i, "prompt": p, "group": "basic" if i < 3 else "advanced"} for i, p in enumerate(prompts)]
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


class Judge:
    """Half sure of everything but one prompt."""

    class identity:
        name = "vlm:some/where/tiny"

    def probability(self, images, questions, answer):
        self.asked = list(questions), answer
        return [RuntimeError("lost") if "dog" in q else 0.5 for q in questions]


def test_each_prompt_is_asked_in_the_papers_words():
    samples = [Sample(str(i), i, "all", p) for i, p in enumerate(["a cat", "two dogs"])]
    judge = Judge()
    first, second = VqaScoreTask().score([ScoreItem(s, None, "picture") for s in samples], judge)
    assert judge.asked == (
        [f'Does this figure show "{p}"? Please answer yes or no.' for p in ("a cat", "two dogs")], "Yes"
    )  # fmt: skip
    assert first.value == 0.5 and first.details["encoder"] == "tiny"
    assert second.value is None and second.details["failed"] == "judge" and "lost" in second.unscored_reason


def test_the_figure_is_the_mean_over_pictures_and_names_the_model():
    rows = [ScoreRow(str(i), 0, "all", Score(p, details={"encoder": "m"})) for i, p in enumerate([0.2, 0.6, 1.0])]
    figure = VqaScore().compute([*rows, ScoreRow("x", 0, "all", Score.unscored("lost"))])
    assert (figure.name, figure.value, figure.n, figure.unscored) == ("vqascore-m", pytest.approx(0.6), 3, 1)
    assert figure.ci95[0] < 0.6 < figure.ci95[1] and figure.unit == "fraction"
    assert VqaScore().compute([]).value is None


def test_a_run_has_a_figure_for_each_group(data, tmp_path):
    made = evaluate("vqascore", "dummy", judge="dummy", output=tmp_path / "run", quiet=True, report=False,
                    tracking__enabled=False, data=str(data))  # fmt: skip
    rows = [json.loads(line) for line in open(tmp_path / "run" / "scores.jsonl")]
    figures = made.results["metrics"]
    assert list(figures) == ["vqascore-dummy", "vqascore-dummy:basic", "vqascore-dummy:advanced"]
    assert figures["vqascore-dummy"]["value"] == pytest.approx(np.mean([row["value"] for row in rows]))
    metrics = VqaScoreTask(str(data)).metrics()
    assert [m.name for m in metrics] == ["vqascore", "vqascore:basic", "vqascore:advanced"]  # for `compare`
    assert figures["vqascore-dummy:basic"]["n"] == 3 and figures["vqascore-dummy:advanced"]["n"] == 1
    assert rows[3]["details"]["question"] == QUESTION.replace("{prompt}", 'a sign that says "stop"')


def test_a_judge_without_probabilities_is_refused_before_anything_is_made(data, tmp_path):
    with pytest.raises(UsageError, match="'stickers' does not say how likely an answer is, which task"):
        evaluate("vqascore", "dummy", judge="stickers", output=tmp_path / "run", data=str(data))
    assert not (tmp_path / "run").exists()
