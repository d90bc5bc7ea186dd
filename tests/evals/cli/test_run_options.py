"""Every option of ``run`` does what it says, and has a twin in the environment."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from evals.cli.main import COMMANDS, main, name_twins
from evals.results import load

# option -> (what is given, key of the configuration, value there)
SETTINGS: dict[str, tuple[str, str, Any]] = {
    "--task": ("geneval", "task", "geneval"),
    "--model": ("dummy:size=32", "model.name", "dummy:size=32"),
    "--judge": ("dummy:accuracy=0.5", "judge.name", "dummy:accuracy=0.5"),
    "--limit": ("7", "limit", 7),
    "--num-images": ("2", "num_images", 2),
    "--seed": ("5", "seed", 5),
    "--seed-mode": ("upstream", "seed_mode", "upstream"),
    "--batch-size": ("3", "batch_size", 3),
    "--device": ("cpu", "model.device", "cpu"),
    "--dtype": ("bfloat16", "model.dtype", "bfloat16"),
    "--guidance-scale": ("2.5", "generation.guidance_scale", 2.5),
    "--steps": ("9", "generation.steps", 9),
    "--height": ("96", "generation.height", 96),
    "--width": ("80", "generation.width", 80),
    "--revision": ("abc", "model.revision", "abc"),
    "--metric": ("group_mean:colors", "metrics", ["group_mean:colors"]),
    "--max-errors": ("5%", "max_errors", 0.05),
    "--experiment": ("mine", "tracking.experiment", "mine"),
    "--tracking-uri": ("http://127.0.0.1:9", "tracking.tracking_uri", "http://127.0.0.1:9"),
    "--tag": ("k=v", "tracking.tags.k", "v"),
    "--set": ("judge.batch_size=4", "judge.batch_size", 4),
}
NOT_SETTINGS = {
    "--config", "--data", "--no-track", "--output", "--shard", "--fresh", "--retry-errors", "--json", "--verbose",
    "--quiet", "--sample-timeout", "--judge-when", "--verify",
}  # fmt: skip


def twin(option: str) -> str:
    return f"BLIP3O_EVAL_RUN_{option[2:].upper().replace('-', '_')}"


def call(*arguments: str, **environment: str) -> Result:
    return CliRunner(env={"BLIP3O_EVAL_DATA": None, **environment}).invoke(main, arguments)


def shown(*arguments: str, **environment: str) -> dict[str, Any]:
    done = call("config", "show", "--json", *arguments, **environment)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)["settings"]


def commands(group: click.Command = main, prefix: str = "BLIP3O_EVAL") -> dict[str, click.Command]:
    found = {}
    for name, (module, _) in COMMANDS.items():
        try:
            command = importlib.import_module(module).command
        except ModuleNotFoundError:
            continue
        name_twins(command, f"{prefix}_{name}")
        found[name] = command
    return found


def test_every_option_of_every_command_has_its_long_name_as_twin() -> None:
    for name, command in commands().items():
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        for sub, one in inner.items():
            words = [w for w in (name, sub) if w]
            prefix = "_".join(["BLIP3O_EVAL", *words]).upper().replace("-", "_")
            if (name, sub) == ("config", "show"):
                prefix = "BLIP3O_EVAL_RUN"  # it shows what `run` would do
            for option in (p for p in one.params if isinstance(p, click.Option)):
                (long, *_) = [o for o in option.opts if o.startswith("--")]
                assert option.envvar == f"{prefix}_{long[2:].upper().replace('-', '_')}"
                assert option.help, (name, sub, long)


def test_the_table_of_this_test_is_complete() -> None:
    run = commands()["run"]
    options = {next(o for o in p.opts if o.startswith("--")) for p in run.params}
    assert options == set(SETTINGS) | NOT_SETTINGS


@pytest.mark.parametrize("option", SETTINGS)
def test_an_option_and_its_twin_set_the_same_and_say_where_it_came_from(option: str) -> None:
    given, key, value = SETTINGS[option]
    base = [] if option == "--task" else ["--task", "geneval"]
    base += [] if option == "--model" else ["--model", "dummy"]
    by_flag = shown(*base, option, given)[key]
    assert by_flag["value"] == value
    assert by_flag["origin"] == ("--set" if option == "--set" else f"flag {option}")
    by_twin = shown(*base, **{twin(option): given})[key]
    assert by_twin["value"] == value
    assert by_twin["origin"] == ("--set" if option == "--set" else f"environment {twin(option)}")


def test_files_environment_set_and_flags_win_in_this_order(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("task: geneval\nmodel: dummy\nseed: 1\nlimit: 1\nnum_images: 1\n")
    (tmp_path / "b.yaml").write_text("\nseed: 2\nlimit: 2\nnum_images: 2\ntracking:\n  tags: {k: b}\n")
    files = ("--config", str(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml"))
    found = shown(*files)
    assert found["task"] == {"value": "geneval", "origin": f"file {tmp_path / 'a.yaml'}:1"}
    assert found["seed"] == {"value": 2, "origin": f"file {tmp_path / 'b.yaml'}:2"}
    assert found["max_errors"]["origin"] == "default"
    assert found["judge.name"]["origin"].startswith("preset geneval")
    found = shown(
        *files, "--set", "limit=4", "--set", "seed=4", "--seed", "5", "--tag", "l=flag",
        BLIP3O_EVAL_RUN_SEED="3", BLIP3O_EVAL_RUN_LIMIT="3", BLIP3O_EVAL_RUN_NUM_IMAGES="3",
    )  # fmt: skip
    assert [found[k]["value"] for k in ("num_images", "limit", "seed")] == [3, 4, 5]
    assert [found[k]["origin"] for k in ("num_images", "limit", "seed")] == [
        "environment BLIP3O_EVAL_RUN_NUM_IMAGES", "--set", "flag --seed",
    ]  # fmt: skip
    assert found["tracking.tags.k"]["value"] == "b" and found["tracking.tags.l"]["value"] == "flag"


def test_several_files_and_settings_come_from_the_environment_too(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        (tmp_path / f"{name}.yaml").write_text(f"seed: {seed}\n")
    found = shown(
        "--task", "geneval", "--model", "dummy",
        BLIP3O_EVAL_RUN_CONFIG=f"{tmp_path / 'a.yaml'}:{tmp_path / 'b.yaml'}",
        BLIP3O_EVAL_RUN_SET="limit=4 num_images=2", BLIP3O_EVAL_RUN_TAG="a=1 b=2",
        BLIP3O_EVAL_RUN_NO_TRACK="1",
    )  # fmt: skip
    assert [found[k]["value"] for k in ("seed", "limit", "num_images")] == [2, 4, 2]
    assert found["tracking.tags.b"]["value"] == "2"
    assert found["tracking.enabled"] == {
        "value": False, "origin": "environment BLIP3O_EVAL_RUN_NO_TRACK",
    }  # fmt: skip


def test_a_misspelt_twin_is_named(tmp_path: Path) -> None:
    done = call("run", "--task", "nix", BLIP3O_EVAL_RUN_LIMTI="3")
    assert (
        "warning: BLIP3O_EVAL_RUN_LIMTI is the twin of no option of 'run'. "
        "Did you mean: BLIP3O_EVAL_RUN_LIMIT?\n"
    ) in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: geneval\nsede: 3\n", r"a.yaml:2: unknown key 'sede'. Did you mean: seed"),
        ("task: geneval\nseed: 3\nseed: 4\n", r"a.yaml:3: not valid YAML (key 'seed' stands twice)"),
        ("task: geneval\nlimit: 0\n", "limit = 0 (from file"),
        ("task: geneval\n\tlimit: 1\n", "a.yaml:2: not valid YAML"),
        ("", "a.yaml: the file is empty"),
        ("- a\n", "a.yaml: expected keys and values, got list"),
        ("a: &x [1]\nb: *x\n", "a.yaml:2: not valid YAML (alias *x is not allowed"),
        ("task: [geneval, geneval]\n", "each once"),
    ],
)
def test_a_broken_file_is_one_line_with_its_place_and_exit_2(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "a.yaml").write_text(text)
    done = call("config", "show", "--config", str(tmp_path / "a.yaml"))
    assert done.exit_code == 2 and message in done.stderr, done.stderr
    assert done.stderr.count("\n") == 1 and done.stdout == ""


def test_the_schema_command_prints_a_schema() -> None:
    schema = json.loads(call("config", "schema").stdout)
    assert schema["additionalProperties"] is False and "required" not in schema
    assert {"task", "model", "generation", "tracking", "data", "metrics"} <= set(schema["properties"])


def run_dummy(folder: Path, *arguments: str, task: str = "geneval") -> Result:
    return call(
        "run", "--task", task, "--model", "dummy", "--no-track", "--output", str(folder), "-q", "--json",
        *arguments,
    )  # fmt: skip


def test_several_tasks_get_a_folder_each_and_what_any_lacks_is_said_first(tmp_path: Path) -> None:
    from evals import registry
    from evals.discovery import discover

    discover()
    registry.tasks.register("geneval-again", registry.tasks.get("geneval"), origin="test")
    try:
        done = run_dummy(tmp_path / "two", "--limit", "6", task="geneval,geneval-again")
    finally:
        del registry.tasks._entries["geneval-again"]
    assert done.exit_code == 0, done.output
    folders = sorted(p.name for p in (tmp_path / "two").iterdir() if p.is_dir())
    assert folders == ["geneval", "geneval-again"]
    assert len(done.stdout.splitlines()) == 2
    for task, message in (("geneval,dpg", "needs the official question file"), ("geneval,nix", "Unknown task")):
        missing = run_dummy(tmp_path / "none", task=task)
        assert missing.exit_code == 2 and message in missing.stderr
        assert not (tmp_path / "none").exists()


def test_dpg_with_a_judge_that_answers_nothing_is_refused_before_anything_is_made(
    tmp_path: Path,
) -> None:
    done = run_dummy(tmp_path / "x", "--judge", "sticker-features", task="dpg")
    assert done.exit_code == 2 and not (tmp_path / "x").exists()
    assert "judge 'sticker-features' answers no questions about pictures, which task 'dpg' needs" in done.stderr


def test_size_seed_mode_and_series_reach_the_pictures(tmp_path: Path) -> None:
    done = run_dummy(tmp_path / "up", "--limit", "6", "--seed-mode", "upstream", "--seed", "9")
    assert done.exit_code == 0, done.output
    assert {row["seed"] for row in load(tmp_path / "up").outputs()} == {9}
    fresh = run_dummy(tmp_path / "up", "--limit", "6", "--seed", "9", "--fresh")
    assert fresh.exit_code == 0
    assert len({row["seed"] for row in load(tmp_path / "up").outputs()}) == 24


def test_height_and_width_reach_the_pictures_and_guard_resume(tmp_path: Path) -> None:
    from PIL import Image

    done = run_dummy(tmp_path / "x", "--limit", "6", "--height", "96", "--width", "80")
    assert done.exit_code == 0, done.output
    row = next(load(tmp_path / "x").outputs())
    assert Image.open(tmp_path / "x" / row["path"]).size == (80, 96)
    other = run_dummy(tmp_path / "x", "--limit", "6", "--height", "96")
    assert other.exit_code == 2 and "generation.width: recorded 80, wanted null" in other.stderr


def test_further_metrics_are_computed_on_a_finished_run_without_making_anything_again(
    tmp_path: Path,
) -> None:
    assert run_dummy(tmp_path / "x", "--limit", "6").exit_code == 0
    before = (tmp_path / "x" / "outputs.jsonl").read_bytes()
    done = run_dummy(tmp_path / "x", "--limit", "6", "--metric", "mean_of_groups:colors,counting")
    body = json.loads(done.stdout)
    wanted = [body["metrics"][g]["value"] for g in ("colors", "counting")]
    assert body["metrics"]["mean_of_groups:colors,counting"]["value"] == sum(wanted) / 2
    assert (tmp_path / "x" / "outputs.jsonl").read_bytes() == before
    for name, message in (("overal", "Unknown metric 'overal'"), ("mean_of_groups", "needs groups")):
        refused = run_dummy(tmp_path / "y", "--metric", name)
        assert refused.exit_code == 2 and message in refused.stderr
        assert not (tmp_path / "y").exists()


@pytest.mark.parametrize("metric", ["group_mean:nope", "mean_of_groups:colors,nope"])
def test_a_metric_of_a_group_that_the_task_lacks_is_refused(tmp_path: Path, metric: str) -> None:
    refused = run_dummy(tmp_path / "y", "--metric", metric)
    assert refused.exit_code == 2
    assert f"metric '{metric}': task 'geneval' has no group 'nope'; it has single_object," in refused.stderr
    assert not (tmp_path / "y").exists()


def test_a_metric_that_was_asked_for_has_its_line_even_without_a_score(tmp_path: Path) -> None:
    asked = ("--metric", "group_mean:color_attr")
    done = call("run", "--task", "geneval", "--model", "dummy", "--no-track", "--limit", "2",
                "--output", str(tmp_path / "x"), "-q", *asked)  # fmt: skip
    line = next(line for line in done.stdout.splitlines() if line.startswith("group_mean:color_attr"))
    assert line.split()[1] == "-" and line.endswith("no samples in this run")


def test_verbose_and_quiet(tmp_path: Path) -> None:
    loud = call("run", "--task", "geneval", "--model", "dummy", "--no-track", "--limit", "6",
                "--output", str(tmp_path / "x"), "-v")  # fmt: skip
    assert "generate: 24 done" in loud.stderr and "overall" in loud.stdout
    assert run_dummy(tmp_path / "x", "--limit", "6").stderr == ""
