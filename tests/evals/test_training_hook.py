"""The shipped hook scores a model in memory as the harness scores it from a folder."""

from __future__ import annotations

import pytest

import evals
from blip3o.presets import build_tiny
from blip3o.train.evaluation import EvaluateSpec, Moment, find_hook
from evals.errors import UsageError
from evals.results import load
from evals.training_hook import check, score

ARGS = {"task": "geneval", "judge": "dummy", "limit": 6, "num_images": 1, "generation": {"steps": 2}}
HOOK = "evals.training_hook:score"


def test_it_writes_a_run_and_returns_values_with_their_bounds(tmp_path):
    pipeline = build_tiny()
    numbers = score(Moment(40, pipeline, tmp_path / "eval", ARGS))
    run = load(tmp_path / "eval/geneval")
    overall = run.results["metrics"]["overall"]
    assert numbers["geneval/overall"] == overall["value"]
    assert (numbers["geneval/overall_low"], numbers["geneval/overall_high"]) == tuple(overall["ci95"])
    assert run.manifest["config"]["generation"]["steps"] == 2 and run.results["counts"]["outputs"] == 6
    # the same weights from a folder: the same verdicts
    folder = tmp_path / "model"
    pipeline.save_pretrained(folder)
    settings = {"limit": 6, "num_images": 1, "generation__steps": 2, "tracking__enabled": False}
    again = evals.evaluate(
        "geneval", f"blip3o:{folder}", judge="dummy", output=tmp_path / "again", quiet=True, report=False, **settings
    )
    pictures = sorted(path.relative_to(again.root) for path in again.root.glob("images/*/samples/*.png"))
    assert len(pictures) == 6
    for name in pictures:
        assert (again.root / name).read_bytes() == (tmp_path / "eval/geneval" / name).read_bytes()
    # other weights in a folder that was begun: made anew, not mixed
    pipeline.model.queries.latent_queries.data.add_(1)
    score(Moment(40, pipeline, tmp_path / "eval", ARGS))
    assert load(tmp_path / "eval/geneval").manifest["model"] != run.manifest["model"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({}, "evaluate.args.task = None: name a task"),
        ({"task": "genval"}, "did you mean.*geneval"),
        ({"task": "geneval", "limt": 3}, "limt"),
        ({"task": "geneval", "limit": 0}, "limit"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_trains(args, message):
    with pytest.raises(UsageError, match="(?i)" + message):
        check(args)
    with pytest.raises(Exception, match="evaluate.args"):
        find_hook(EvaluateSpec(every=1, hook=HOOK, args=args))
