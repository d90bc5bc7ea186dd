"""Sweep files: wrong keys and values with their lines, all at once; names of shipped ones; the JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from evals.cli.config import command as config_command
from evals.errors import ConfigError, InputError, UsageError
from evals.sweeps.plan import plan_sweep
from evals.sweeps.schema import SweepConfig, json_schema
from evals.sweeps.sweepfile import load_sweep, shipped

GOOD = """\
name: trial
base:
  train: {trainer: dummy, steps: 4}
  run: {limit: 6, generation.steps: 3}
  evaluate:
    tasks: [geneval]
    at: [0.5]
axes:
  train.target: [clip, vae]
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    return path


def problems(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as raised:
        plan_sweep(written(tmp_path, text))
    return str(raised.value).replace(f"{tmp_path}/", "")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    config, source = load_sweep(written(tmp_path, GOOD), ["base.train.steps=8", "seeds=[0, 1]", "axes.train.steps=[1]"])
    assert config.base.train["steps"] == 8 and config.seeds == [0, 1]
    assert config.axes == {"train.target": ["clip", "vae"], "train.steps": [1]}
    assert source.place("base", "evaluate", "at").endswith("s.yaml:7")
    assert source.place("base", "evaluate", "tasks", 0).endswith("s.yaml:6")


def test_every_wrong_form_is_told_with_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("at: [0.5]", "at: [0.5, 2.0]\n    finale: {}")
    text += "seeds: [0, true]\non_error: halt\nbaselin: {}\n"
    told = problems(tmp_path, text)
    assert told.startswith("s.yaml has 5 problems:")
    for line in (
        "s.yaml:7: base.evaluate.at: 2.0 is neither a share above 0 and up to 1.0 nor a step from 1 on",
        "s.yaml:8: unknown key 'base.evaluate.finale'. Did you mean: final?",
        "s.yaml:11: seeds.1: True is not allowed",
        "s.yaml:12: on_error: 'halt' is not allowed: input should be 'continue' or 'stop'",
        "s.yaml:13: unknown key 'baselin'. Did you mean: baseline",
    ):
        assert line in told


def test_every_wrong_value_is_told_with_its_line(tmp_path: Path) -> None:
    text = GOOD.replace("limit: 6", "limt: 6, model: nano").replace("[clip, vae]", "[clip, vaee]")
    text = text.replace("steps: 3", "steps: 0").replace("[0.5]", "[50]")
    text += "  train.objctive: [flow, mse]\nexclude: [{target: clap}]\nmetrics: [geneval/overal]\n"
    told = problems(tmp_path, text)
    for line in (
        "s.yaml:4: base.run.limt: unknown key 'limt'. Did you mean: limit?",
        "s.yaml:4: base.run.model: the model is what each point trains",
        "s.yaml:11: exclude: target is never 'clap'. Did you mean: clip?",
        "unknown key 'objctive' of base.train. Did you mean: objective?",
    ):
        assert line in told
    text = GOOD.replace("[clip, vae]", "[clip, vaee]").replace("steps: 3", "steps: 0").replace("[0.5]", "[50]")
    told = problems(tmp_path, text)
    for line in (
        "s.yaml:7: base.evaluate.at: step 50 is beyond the last stage, which has 4",
        "generation.steps = 0 (from s.yaml:4) is not allowed: must be at least 1",
        "base.train.target = 'vaee' is not allowed. Did you mean: vae?",
    ):
        assert line in told


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("[geneval]", "[genval]", r"s.yaml:6: Unknown task 'genval'. Did you mean: geneval"),
        ("[geneval]", "[geneval, geneval]", r"base.evaluate.tasks names geneval twice"),
        ("[geneval]", "[]", r"s.yaml:6: base.evaluate.tasks: \[\] is not allowed"),
        ("{limit: 6,", "{limit: 6, judge: stikers,", r"Unknown judge 'stikers'. Did you mean: stickers"),
        ("[clip, vae]", "[]", r"train.target has no values: the grid would be empty"),
        ("trainer: dummy", "trainer: diffusrs", r"Unknown trainer 'diffusrs'"),
        ("name: trial", "name: a/b", r"s.yaml:1: name: 'a/b' is not allowed"),
        ("name: trial\n", "", r"name is required"),
        ("[clip, vae]", "[clip, vae]\nmetrics: [overall]", r"Did you mean: geneval/overall\?"),
    ],
)
def test_a_single_problem_is_one_line(tmp_path: Path, old: str, new: str, wanted: str) -> None:
    with pytest.raises(ConfigError, match=wanted) as raised:
        plan_sweep(written(tmp_path, GOOD.replace(old, new)))
    assert "\n" not in str(raised.value)


def test_broken_yaml_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sweep file .*s.yaml:2: not valid YAML \(key 'name' stands twice\)"):
        load_sweep(written(tmp_path, "name: a\nname: b\n"))
    with pytest.raises(InputError, match="sweep file nowhere.yaml: cannot be read"):
        load_sweep("nowhere.yaml")
    with pytest.raises(UsageError, match="'ablatio' is neither a sweep file nor the name of one that ships"):
        load_sweep("ablatio")


def test_every_shipped_sweep_is_sound_in_form() -> None:
    for name in shipped():
        config, _ = load_sweep(name)
        assert config.name == name and config.description


def test_the_schema_takes_what_the_reader_takes(tmp_path: Path) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    config, _ = load_sweep(written(tmp_path, GOOD))
    data = config.model_dump(mode="json", exclude_defaults=True)
    assert not list(validator.iter_errors({**data, "seeds": [1, 2], "executor": {"name": "slurm"}}))
    assert list(validator.iter_errors({**data, "axis": {}}))
    assert list(validator.iter_errors({**data, "base": {**data["base"], "run": {"limit": 0}}}))
    printed = json.loads(CliRunner().invoke(config_command, ["schema", "sweep"]).stdout)
    assert printed == schema and set(printed["properties"]) == set(SweepConfig.model_fields)
