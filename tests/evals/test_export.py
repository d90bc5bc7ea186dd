from __future__ import annotations

import copy
import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import evals
from evals.errors import UsageError
from evals.export import export, latex_text, markdown_text
from evals.frames import samples_frame
from evals.results import RunData, load

HOSTILE = '=cmd|"/c" a&b %$#_{}~^\\ <script>|\n\u202ex\udc80'

# Of a results file that lmms-eval 0.7.3 wrote, without the optional "groups", "samples" and "efficiency".
LMMS_EVAL_KEYS = {
    "results", "group_subtasks", "configs", "versions", "n-shot", "higher_is_better", "n-samples", "config",
    "git_hash", "git_branch", "lmms_eval_version", "date", "usage", "task_hashes", "model_source", "model_name",
    "model_name_sanitized", "system_instruction", "system_instruction_sha", "fewshot_as_multiturn",
    "chat_template", "chat_template_sha", "start_time", "end_time", "total_evaluation_time_seconds",
}  # fmt: skip
LMMS_EVAL_CONFIG = {
    "model", "model_args", "model_backend", "batch_size", "batch_sizes", "device", "use_cache", "limit",
    "offset", "bootstrap_iters", "process_docs_parallel", "gen_kwargs", "random_seed", "numpy_seed",
    "torch_seed", "fewshot_seed",
}  # fmt: skip


@pytest.fixture(scope="module")
def partial_run(tmp_path_factory: pytest.TempPathFactory) -> RunData:
    root = tmp_path_factory.mktemp("export") / "run"
    evals.evaluate(
        "geneval", "dummy", output=root, quiet=True, report=False, tracking__enabled=False,
        limit=6, num_images=1,
    )  # fmt: skip
    return load(root)


def changed(run: RunData, **changes: Any) -> RunData:
    """A copy with other values: ``model__name="x"`` in the manifest, and in results where they stand, too."""
    manifest, results = copy.deepcopy(dict(run.manifest)), copy.deepcopy(dict(run.results or {}))
    for key, value in changes.items():
        section, _, name = key.partition("__")
        for place in (manifest, results):
            if not name and section in place:
                place[section] = value
            elif name and section in place:
                place[section][name] = value
    return replace(run, manifest=manifest, results=results)


@pytest.fixture
def real(partial_run: RunData) -> RunData:
    """The same run, told as if it were a whole one of a real model."""
    return changed(partial_run, partial=False, is_test_double=False, model__name="nano")


def test_csv_holds_every_metric_of_every_run_and_no_formula(partial_run, real) -> None:
    hostile = changed(real, model__name=HOSTILE)
    rows = list(csv.DictReader(io.StringIO(export([partial_run, hostile], "csv"))))
    assert len(rows) == 2 * len(partial_run.metric_values())
    assert rows[0]["metric"] == "overall" and rows[0]["partial"] == rows[0]["test_double"] == "true"
    assert float(rows[0]["value"]) == partial_run.results["metrics"]["overall"]["value"]
    assert float(rows[0]["ci_low"]) <= float(rows[0]["value"]) <= float(rows[0]["ci_high"])
    names = {row["model"] for row in rows}
    assert names == {"dummy", """'=cmd|"/c" a&b %$#_{}~^\\ <script>| \u202ex?"""}


def test_markdown_marks_what_is_no_result_and_shows_names_as_they_stand(partial_run, real) -> None:
    text = export([partial_run, changed(real, model__name=HOSTILE)], "markdown")
    assert "| dummy (TEST DOUBLE, PARTIAL) | dummy |" in text
    assert "- dummy: PARTIAL: 6 of 553 samples" in text
    assert "&lt;script&gt;" in text and "<script" not in text and "\u202e" not in text
    widths = {
        len(re.findall(r"(?<!\\)\|", line)) for line in text.splitlines() if line.startswith("| ")
    }
    assert len(widths) == 1  # no name adds a column
    assert markdown_text("a|b_c") == r"a\|b\_c"


def test_latex_compiles_whatever_a_model_is_called(partial_run, real) -> None:
    text = export([partial_run, changed(real, model__name=HOSTILE)], "latex")
    body = text.split("\n", 1)[1]
    plain = re.sub(r"\\[&%$#_{}\\]", "", body)  # what is left has a meaning to TeX
    assert plain.count("{") == plain.count("}") and not set(plain) & set("$#~^%_<>|")
    rows = [line for line in body.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", row)) for row in rows}) == 1
    assert latex_text("[a] 50 % of_x") == r"{[}a] 50 \% of\_x"


def test_a_table_per_task_and_version(real) -> None:
    text = export([real, changed(real, task__name="dpg"), changed(real, task__version="2")], "markdown")
    assert [line for line in text.splitlines() if line.startswith("**")] == [
        "**geneval, version 1, with 95 % intervals**", "**dpg, version 1, with 95 % intervals**",
        "**geneval, version 2, with 95 % intervals**",
    ]  # fmt: skip


def test_model_index_is_a_card_that_huggingface_hub_reads(partial_run, real) -> None:
    from huggingface_hub import EvalResult, ModelCard

    text = export([partial_run, changed(real, model__name=HOSTILE)], "model-index")
    card = ModelCard(text)
    results = card.data.eval_results
    assert all(isinstance(one, EvalResult) for one in results)
    given = [m for m in partial_run.metric_values() if m.value is not None]
    assert len(results) == 2 * len(given)
    first = results[0]
    assert (first.task_type, first.metric_type) == ("text-to-image", "overall")
    assert first.metric_value == given[0].value and first.metric_args["n"] == given[0].n
    assert first.metric_args["ci95"] == list(given[0].ci95)
    assert first.dataset_name == "geneval (TEST DOUBLE, PARTIAL)"
    assert any("PARTIAL: 6 of 553" in text for text in first.dataset_args["caveats"])
    alone = ModelCard(export([partial_run], "model-index"))
    assert ModelCard(str(alone)).data.eval_results == alone.data.eval_results
    assert alone.data.model_name == "dummy"


def test_two_runs_of_one_model_stay_two_entries_of_its_card(real) -> None:
    from huggingface_hub import ModelCard

    other = changed(real, config_sha256="f" * 64)
    results = ModelCard(export([real, other], "model-index")).data.eval_results
    assert len({one.dataset_config for one in results}) == 2


def test_the_data_set_of_a_hub_task_is_named(real) -> None:
    from huggingface_hub import ModelCard

    from tasks.understanding.mmbench import MmBench
    from tasks.understanding.mme import Mme

    for task, split in ((Mme, "test"), (MmBench, "dev")):
        run = changed(real, task__card=dict(task.card), task__name=task.name)
        first = ModelCard(export([run], "model-index")).data.eval_results[0]
        assert first.dataset_type == task.source.hub_id and first.dataset_split == split


def test_lmms_eval_form_has_the_keys_of_its_results_file(real) -> None:
    dpg = changed(real, task__name="dpg")
    body = json.loads(export([real, dpg], "lmms-eval"))
    assert set(body) == LMMS_EVAL_KEYS | {"blip3o_eval"}
    assert set(body["config"]) == LMMS_EVAL_CONFIG
    assert list(body["results"]) == ["geneval", "dpg"]
    mine = body["results"]["geneval"]
    assert mine["alias"] == "geneval" and mine["samples"] == 6
    assert mine["overall,none"] == real.results["metrics"]["overall"]["value"]
    assert mine["overall_stderr,none"] == "N/A"
    assert body["n-samples"]["geneval"] == {"original": 553, "effective": 6}
    assert body["n-shot"] == {"dpg": 0, "geneval": 0}
    assert body["higher_is_better"]["geneval"]["overall"] is True
    assert re.fullmatch(r"\d{8}_\d{6}", body["date"])
    assert body["blip3o_eval"]["geneval"]["metrics"] == real.results["metrics"]


def test_lmms_eval_form_refuses_what_its_file_cannot_hold(partial_run, real) -> None:
    with pytest.raises(UsageError, match="holds one model, these runs have 'nano'"):
        export([real, partial_run], "lmms-eval")
    with pytest.raises(UsageError, match="holds a task once"):
        export([real, real], "lmms-eval")


@pytest.mark.parametrize("form", ["csv", "markdown", "latex", "model-index", "lmms-eval"])
def test_an_unfinished_run_is_refused(real, form: str) -> None:
    with pytest.raises(UsageError, match="is not finished"):
        export([changed(real, status="running")], form)


def test_frames_hold_what_json_holds_and_no_encoding_can_write(tmp_path: Path) -> None:
    """pandas 3 refused a column of text with a lone surrogate in it."""
    row = {"sample_id": "a\udc80", "image_index": 0, "group": "g", "prompt": "x\ud800", "seed": 1, "status": "ok"}
    score = {"sample_id": "a\udc80", "image_index": 0, "group": "g", "value": None, "reason": "",
             "answer": "\udfff", "details": {"k\udc80": ["\udc80"]}, "unscored": "no"}  # fmt: skip
    (tmp_path / "outputs.jsonl").write_text(json.dumps(row) + "\n")
    (tmp_path / "scores.jsonl").write_text(json.dumps(score) + "\n")
    run = RunData(tmp_path, {"status": "finished"}, {})
    frame = run.to_pandas()
    assert frame.loc[0, "sample_id"] == "a?" and frame.loc[0, "details"] == {"k?": ["?"]}
    assert frame["value"].isna().all() and str(frame["value"].dtype) == "float64"
    frame.to_csv(tmp_path / "x.csv")
    (tmp_path / "scores.jsonl").unlink()
    assert len(samples_frame(run)) == 1
