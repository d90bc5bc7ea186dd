"""Tasks of lmms-eval on our run-time give its figures: same documents, same scripted answers, both harnesses."""

import math

import pytest

import evals
from evals.lmms import package
from tasks.understanding.lmms import create

pytestmark = pytest.mark.skipif(
    package.version() is None, reason="needs lmms-eval: pip install 'blip3o-eval[understanding]'"
)

TASKS = (
    "ai2d",  # choices, a filter of its own, prompts by model
    "pope",  # precision, recall and F1 over all documents
    "chartqa",  # figures over parts of the documents
    "mme",  # pairs of questions, sums of categories
    "seedbench_ppl",  # log-likelihoods of choices about pictures
    "arc_easy",  # text only, log-likelihoods, templates instead of functions
    "docvqa_val",  # ANLS, a validation split, several questions about a page
    "scienceqa_img",  # text hints
    "vqav2_val",  # ten annotators; its scorer changes the document
    "realworldqa",  # a filter that reads the document
    "mmstar",  # categories
    "mmmu_val",  # several pictures, open questions, a random fallback
    "gsm8k",  # text only, two filters
)


@pytest.mark.parametrize("task", TASKS)
def test_figures_are_those_of_lmms_eval(task, made_up, theirs, as_figures, scripted, tmp_path):
    path = made_up(task)
    shots = ":num_fewshot=0" if task == "gsm8k" else ""
    run = evals.evaluate(
        create(task + shots, path), scripted(), output=tmp_path / "run", quiet=True, report=False,
        tracking__enabled=False, batch_size=5,
    )  # fmt: skip
    metrics = run.results["metrics"]
    expected = as_figures(theirs(task, path, num_fewshot=0 if shots else None))[task]
    assert expected
    for key, value in expected.items():
        name = key.removesuffix(",none")
        own, exact = metrics[name], metrics[f"{name}_lmms_eval"]
        print(task, key, value, own["value"], own["ci95"], own["method"], own["note"])
        if value is None:
            assert exact["value"] is None and exact["note"]
            continue
        assert math.isclose(exact["value"], value, rel_tol=1e-12), (key, exact, value)
        assert own["value"] == exact["value"]  # nothing failed
        assert own["ci95"] is not None or own["note"], (key, own)
    assert {k for k in metrics if not k.endswith("_lmms_eval") and metrics[k]["n"]} == {
        k.removesuffix(",none") for k in expected
    }
