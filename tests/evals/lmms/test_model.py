"""lmms:MODEL,args: lmms-eval's models behind our protocol. Needs lmms-eval: see conftest.py."""

import pytest

import evals
from evals.api import AnswerRequest, ModelOptions
from evals.errors import MissingRequirementError, UsageError
from evals.lmms import package
from evals.models.lmms import create

OPTIONS = ModelOptions(device="cpu")
needs_lmms_eval = pytest.mark.skipif(
    package.version() is None, reason="needs lmms-eval: pip install 'blip3o-eval[understanding]'"
)


@pytest.mark.skipif(package.version() is not None, reason="lmms-eval is installed")
def test_without_lmms_eval_one_line_gives_the_pip_command():
    with pytest.raises(MissingRequirementError, match=r'pip install "blip3o-eval\[understanding\]"'):
        create("dummy", OPTIONS)


@pytest.mark.parametrize("spec, words", [("", "lmms:MODEL"), ("dummy,yes", "'yes'.*key=value")])
def test_bad_names_are_refused(spec, words):
    with pytest.raises(UsageError, match=words):
        create(spec, OPTIONS)


@needs_lmms_eval
def test_unknown_models_get_a_suggestion():
    with pytest.raises(UsageError, match="Did you mean: .*qwen2_5_vl"):
        create("qwen2_5_v", OPTIONS)


@needs_lmms_eval
def test_a_model_whose_package_is_missing_says_which():
    model = create("bagel_umm,pretrained=nowhere", OPTIONS)  # in lmms-eval's registry, without a file
    with pytest.raises(MissingRequirementError, match="bagel_umm.*No module named"):
        model.load()


@needs_lmms_eval
def test_dummy_answers_our_tasks_and_theirs(made_up, tmp_path):
    for task, path in (("mme_stickers", None), ("lmms:pope", made_up("pope", 8))):
        run = evals.evaluate(
            task, "lmms:dummy,response=yes", output=tmp_path / task.replace(":", "-"), quiet=True, report=False,
            tracking__enabled=False, **({"data": str(path)} if path else {"limit": 8}),
        )  # fmt: skip
        assert run.results["is_test_double"] and run.results["counts"]["failed"] == 0
    assert run.results["metrics"]["pope_accuracy"]["value"] == 0.5


class Adapter:
    """What an adapter of lmms-eval may do: return texts, results, nothing, or raise."""

    is_simple = True
    device = "cpu"

    def __init__(self):
        self.task_dict = {}

    def generate_until(self, instances):
        made = []
        for instance in instances:
            prompt, settings, to_visual, number, task, split = instance.args
            shown = to_visual(self.task_dict[task][split][number])
            if prompt == "raise":
                raise RuntimeError("a bad sample")
            made.append(None if prompt == "nothing" else f"{prompt} {len(shown)} {settings['max_new_tokens']} end")
        return made

    def loglikelihood(self, instances):
        return [(float(len(instance.args[1])), False) for instance in instances]


@needs_lmms_eval
def test_requests_become_instances_and_missing_texts_errors():
    from PIL import Image

    model = create("dummy", OPTIONS)
    model._model = Adapter()
    requests = [
        AnswerRequest("a", "how many", 0, (Image.new("RGB", (8, 8)),) * 2, 16, (" end",)),
        AnswerRequest("b", "nothing", 0, (), 4),
    ]
    first, second = model.answer(requests)
    assert first == "how many 2 16"
    assert isinstance(second, ValueError)
    assert model.log_likelihoods(requests, ["abc", "d"]) == [-3.0, -1.0]
    with pytest.raises(RuntimeError, match="a bad sample"):
        model.answer([AnswerRequest("c", "raise", 0, (), 4)])
