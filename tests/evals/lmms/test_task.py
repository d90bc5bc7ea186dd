"""lmms:NAME as a task: names, data, failures, resume, choices, rounds, groups. Needs lmms-eval: see conftest.py."""

import json

import pytest

import evals
from evals.errors import InputError, MissingRequirementError, UnknownNameError, UsageError
from evals.lmms import package
from evals.plugins.lookup import find_task
from tasks.understanding.lmms import create

needs_lmms_eval = pytest.mark.skipif(
    package.version() is None, reason="needs lmms-eval: pip install 'blip3o-eval[understanding]'"
)


@pytest.mark.skipif(package.version() is not None, reason="lmms-eval is installed")
def test_without_lmms_eval_one_line_gives_the_pip_command():
    with pytest.raises(MissingRequirementError, match=r'pip install "blip3o-eval\[understanding\]"'):
        find_task("lmms:ai2d")


def test_a_name_is_asked_for():
    with pytest.raises(UsageError, match="lmms:NAME"):
        find_task("lmms:")


def test_unknown_settings_are_refused_by_name():
    with pytest.raises(UsageError, match="'shots=2'.*Did you mean|'shots=2'.*Known"):
        create("ai2d:shots=2")


@needs_lmms_eval
@pytest.mark.parametrize("spec, words", [("ai2d:form=both", "simple or chat"), ("ai2d:num_fewshot=x", "whole number")])
def test_bad_settings_are_refused(spec, words):
    with pytest.raises(UsageError, match=words):
        create(spec)


@needs_lmms_eval
def test_unknown_names_get_a_suggestion():
    with pytest.raises(UnknownNameError, match="ai2d"):
        create("ai2dd").samples()


@needs_lmms_eval
def test_missing_data_is_one_line_with_the_command(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(MissingRequirementError, match="hf download lmms-lab-encoder/POPE .*--data DATA/pope"):
        create("pope").samples()


@needs_lmms_eval
def test_a_place_without_documents_is_named(tmp_path):
    with pytest.raises(InputError, match="no documents of lmms:ai2d"):
        create("ai2d", tmp_path).samples()


@needs_lmms_eval
def test_failed_answers_are_left_out_and_counted(made_up, scripted, tmp_path):
    """lmms-eval has no failed answers: its figure takes them for empty ones."""
    task, model = create("pope", made_up("pope", 20)), scripted(fails_on="cat 3 ")
    run = evals.evaluate(
        task, model, output=tmp_path / "run", quiet=True, report=False, tracking__enabled=False, max_errors=1.0
    )
    metrics = run.results["metrics"]
    ours, theirs = metrics["pope_accuracy"], metrics["pope_accuracy_lmms_eval"]
    assert (ours["n"], ours["unscored"]) == (19, 1)
    assert (theirs["n"], theirs["note"]) == (20, "1 failed answers count as empty ones")
    assert theirs["value"] == pytest.approx(ours["value"] * 19 / 20)
    assert theirs["ci95"] is None


@needs_lmms_eval
def test_a_killed_run_resumes_to_the_same_figures(made_up, scripted, tmp_path):
    path = made_up("ai2d", 20)

    class Dies(scripted):
        def answer(self, requests):
            if len(self.asked) >= 8:
                raise KeyboardInterrupt
            return super().answer(requests)

    def run(model, folder):
        return evals.evaluate(
            create("ai2d", path), model, output=tmp_path / folder, quiet=True, report=False,
            tracking__enabled=False, batch_size=4,
        )  # fmt: skip

    whole = run(scripted(), "whole")
    with pytest.raises(KeyboardInterrupt):
        run(Dies(), "killed")
    rest = scripted()
    resumed = run(rest, "killed")
    assert len(rest.asked) == 12
    assert resumed.results["metrics"] == whole.results["metrics"]
    assert (tmp_path / "killed/scores.jsonl").read_bytes() == (tmp_path / "whole/scores.jsonl").read_bytes()


@needs_lmms_eval
def test_choices_need_a_model_that_gives_likelihoods(made_up, scripted, tmp_path):
    class Speaks(scripted):
        log_likelihoods = property()

    with pytest.raises(UsageError, match="gives no log-likelihoods"):
        evals.evaluate(
            create("arc_easy", made_up("arc_easy", 4)), Speaks(), output=tmp_path / "run", quiet=True,
            report=False, tracking__enabled=False,
        )  # fmt: skip


@needs_lmms_eval
def test_several_documents_about_one_picture_are_one_cluster(made_up):
    task = create("vqav2_val", made_up("vqav2_val", 9))
    assert [sample.metadata["cluster"] for sample in task.samples()] == [str(n // 3) for n in range(9)]


@needs_lmms_eval
def test_pictures_are_made_when_asked_for_and_can_be_counted(made_up):
    pictures = create("mmmu_val", made_up("mmmu_val", 2)).samples()[0].images
    assert len(pictures) == 2
    assert [one.size for one in list(pictures)] == [pictures[0].size, pictures[1].size] == [(64, 48)] * 2


@needs_lmms_eval
def test_chat_prompts_are_those_of_doc_to_messages(made_up, theirs, as_figures, scripted, tmp_path):
    path = made_up("mmmu_val", 18)
    run = evals.evaluate(
        create("mmmu_val:form=chat", path), scripted(), output=tmp_path / "run", quiet=True, report=False,
        tracking__enabled=False,
    )  # fmt: skip
    expected = as_figures(theirs("mmmu_val", path, "chat"))["mmmu_val"]["mmmu_acc,none"]
    assert run.results["metrics"]["mmmu_acc_lmms_eval"]["value"] == expected


@needs_lmms_eval
def test_groups_have_the_figures_of_their_tasks_and_their_own(made_up, theirs, as_figures, scripted, tmp_path):
    from evals.lmms import catalog

    folder = catalog.entries()["blink_art_style"].folder
    members = [e.name for e in catalog.entries().values() if e.folder == folder and e.kind == "task"]
    for number, name in enumerate(sorted(members)):
        made_up(name, 10 + number, tmp_path / "data", schema="blink")
    run = evals.evaluate(
        create("blink", tmp_path / "data"), scripted(), output=tmp_path / "run", quiet=True, report=False,
        tracking__enabled=False,
    )  # fmt: skip
    metrics, expected = run.results["metrics"], as_figures(theirs("blink", tmp_path / "data"))
    assert len(expected) > 10
    for task, values in expected.items():
        for key, value in values.items():
            found = metrics[f"{task}/{key.removesuffix(',none')}_lmms_eval"]["value"]
            assert found == pytest.approx(value, rel=1e-12), (task, key)
    assert metrics["blink/blink_acc"]["ci95"]


ROUNDS = '''
def to_visual(doc):
    return []

def to_text(doc, lmms_eval_specific_kwargs=None, previous_output=None, round_idx=None, previous_round_info=None):
    if round_idx is None:
        return "first: " + doc["question"]
    if round_idx == 3:
        return [], "", True, list(previous_output), None
    text = f"round {round_idx} after {previous_output[-1]}: {doc['question']}"
    return [], text, False, list(previous_output), round_idx

def process(doc, results):
    return {"rounds": len(results[0]), "ends": float(results[0][-1] == doc["answer"])}
'''


@needs_lmms_eval
def test_tasks_of_several_rounds_and_of_own_yaml_files(theirs, as_figures, scripted, tmp_path):
    folder = tmp_path / "yaml"
    folder.mkdir()
    (folder / "utils.py").write_text(ROUNDS)
    rows = [{"question": f"what {n}?", "answer": "yes"} for n in range(12)]
    (tmp_path / "talk.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "talk.yaml").write_text(
        "task: talk\ndataset_path: json\ntest_split: test\noutput_type: generate_until_multi_round\n"
        "doc_to_visual: !function utils.to_visual\ndoc_to_text: !function utils.to_text\ndoc_to_target: answer\n"
        "process_results: !function utils.process\nlmms_eval_specific_kwargs: {default: {}}\n"
        "metric_list:\n  - {metric: rounds, aggregation: mean, higher_is_better: true}\n"
        "  - {metric: ends, aggregation: mean, higher_is_better: true}\n"
    )
    run = evals.evaluate(
        create(f"talk:include={folder}", tmp_path / "talk.jsonl"), scripted(), output=tmp_path / "run", quiet=True,
        report=False, tracking__enabled=False,
    )  # fmt: skip
    metrics = run.results["metrics"]
    assert metrics["rounds"]["value"] == 3.0
    expected = as_figures(theirs("talk", tmp_path / "talk.jsonl", include=str(folder)))["talk"]
    assert metrics["ends_lmms_eval"]["value"] == expected["ends,none"]


@needs_lmms_eval
def test_repeats_are_samples_of_their_own(made_up, scripted, tmp_path):
    task = create("ai2d:repeats=3", made_up("ai2d", 5))
    assert [s.id for s in task.samples()][:4] == ["000000#0", "000000#1", "000000#2", "000001#0"]
    run = evals.evaluate(
        task, scripted(), output=tmp_path / "run", quiet=True, report=False, tracking__enabled=False
    )
    assert run.results["metrics"]["exact_match,flexible-extract"]["n"] == 5
