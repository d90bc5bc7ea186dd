"""Our models inside lmms-eval's evaluator give the figures that they give on our run-time."""

import pytest

import evals
from evals.errors import ModelError, UsageError
from evals.lmms import package
from evals.models.dummy import DummyModel

pytestmark = pytest.mark.skipif(
    package.version() is None, reason="needs lmms-eval: pip install 'blip3o-eval[understanding]'"
)


def evaluated(model, task, path):
    """lmms-eval's own evaluator with a model of ours on local documents."""
    from evals.lmms import loading

    evaluator, tasks = (package.load(f"lmms_eval.{name}") for name in ("evaluator", "tasks"))
    loaded = loading.load(task, path, "simple" if model.is_simple else "chat")
    real = evaluator.get_task_dict
    evaluator.get_task_dict = lambda *_: loaded.tree
    try:
        return evaluator.simple_evaluate(
            model=model, tasks=[task], task_manager=tasks.TaskManager.__new__(tasks.TaskManager),
            bootstrap_iters=0, log_samples=False,
        )["results"]  # fmt: skip
    finally:
        evaluator.get_task_dict = real


def adapter(kind="Simple", **arguments):
    return getattr(package.load("evals.lmms.adapter"), f"Blip3o{kind}")(device="cpu", **arguments)


@pytest.mark.parametrize(
    ("name", "task", "kind"),
    [
        ("dummy", "pope", "Simple"),
        ("dummy", "mmmu_val", "Chat"),
        ("tiny", "ai2d", "Simple"),  # real code with random weights, in batches
        ("tiny", "seedbench_ppl", "Simple"),  # log-likelihoods of choices
    ],
)
def test_both_directions_give_one_figure(name, task, kind, made_up, as_figures, tmp_path):
    path = made_up(task, 12)
    found = as_figures(evaluated(adapter(kind, pretrained=name, batch_size=4), task, path))[task]
    form = ":form=chat" if kind == "Chat" else ""
    run = evals.evaluate(
        f"lmms:{task}{form}", name, data=str(path), output=tmp_path / "run", quiet=True, report=False,
        tracking__enabled=False, batch_size=4, model__device="cpu",
    )  # fmt: skip
    assert found and run.results["counts"]["failed"] == 0
    for key, value in found.items():
        assert run.results["metrics"][f"{key.removesuffix(',none')}_lmms_eval"]["value"] == value, key


def test_a_failed_answer_stops_lmms_eval_unless_it_may_be_empty(made_up, monkeypatch):
    path = made_up("pope", 8)
    plain = DummyModel.answer

    def fails_once(self, requests):
        return [ValueError("no memory of this") if "cat 3 " in r.prompt else plain(self, [r])[0] for r in requests]

    monkeypatch.setattr(DummyModel, "answer", fails_once)
    with pytest.raises(ModelError, match="pope/3: ValueError: no memory of this.*on_error=empty"):
        evaluated(adapter(pretrained="dummy"), "pope", path)
    model = adapter(pretrained="dummy", on_error="empty")
    assert evaluated(model, "pope", path)["pope"]["pope_accuracy,none"] <= 7 / 8
    assert model.failures == 1


def test_bad_arguments_are_refused():
    with pytest.raises(UsageError, match="on_error='skip'"):
        adapter(pretrained="dummy", on_error="skip")
    with pytest.raises(UsageError, match="Unknown model 'tinny'"):
        adapter(pretrained="tinny")


def test_the_entry_point_names_both_classes():
    from evals.lmms.plugin import manifests

    registry = package.load("lmms_eval.models.registry_v2").ModelRegistryV2()
    for manifest in manifests():
        registry.register_manifest(manifest)
    assert registry.get_model_class("blip3o").is_simple is False
    assert registry.get_model_class("blip3o", force_simple=True).is_simple is True
