"""Scores and samples on the way: kept, told, harmless when they fail, and without a trace in what is learned."""

from __future__ import annotations

import dataclasses
import json
import random
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from blip3o.errors import ConfigError
from blip3o.pipeline import Blip3oPipeline
from blip3o.train.contact_sheet import contact_sheet
from blip3o.train.evaluation import EvaluateSpec, find_hook, numbers_of
from blip3o.train.recipe import recipe_from_dict
from blip3o.train.run_recipe import run_recipe

SEEN = []


def greedy(moment):
    """A hook that draws random numbers everywhere, keeps what it saw, and fails at step 2."""
    random.random(), np.random.random(), torch.rand(3)
    SEEN.append((moment.step, {k: v.clone() for k, v in moment.pipeline.model.state_dict().items()}))
    if moment.step == 2:
        raise ValueError("no judge at hand\ntoday")
    return {"score": moment.step + moment.args.get("more", 0)}


def check(args):
    if "less" in args:
        raise ValueError("less is not allowed")


greedy.check = check
HOOK = f"{__name__}:greedy"


@pytest.fixture(autouse=True)
def _importable(monkeypatch):
    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or sys.modules[greedy.__module__])


def rows(folder):
    return [json.loads(line) for line in (folder / "train/log.jsonl").read_text().splitlines()]


def weights(folder):
    return Blip3oPipeline.from_pretrained(folder).model.state_dict()


def test_hook_and_samples_run_at_their_steps_and_change_nothing(folder, values, tmp_path, caplog):
    SEEN.clear()
    evaluate = {"every": 2, "at_start": True, "hook": HOOK, "args": {"more": 0.5}, "prompts": ["a dog", "a cat"]}
    recipe = recipe_from_dict(values(folder, evaluate=evaluate))
    saved = run_recipe(recipe, tmp_path / "with")
    plain = run_recipe(dataclasses.replace(recipe, evaluate=None), tmp_path / "without")
    scored = [row for row in rows(tmp_path / "with") if row.get("evaluation")]
    assert [row["step"] for row in scored] == [0, 2, 4]
    assert scored[0]["score"] == 0.5 and scored[2]["score"] == 4.5
    # the failure at step 2 is said in the log and aloud, and the rest went on
    assert scored[1]["hook_failed"] == "ValueError: no judge at hand today" and scored[1]["samples"] == 2
    assert "EVALUATION FAILED at step 2 (hook); training goes on" in caplog.text
    for name, tensor in weights(plain).items():
        assert torch.equal(tensor, weights(saved)[name]), name
    # the last evaluation saw what was saved
    step, seen = SEEN[-1]
    assert step == 4 and all(torch.equal(seen[name], tensor) for name, tensor in weights(saved).items())
    names = sorted(str(p.relative_to(tmp_path / "with/samples")) for p in (tmp_path / "with/samples").rglob("*.png"))
    assert names == [f"step-{step:08d}/{i:02d}.png" for step in (0, 2, 4) for i in (0, 1)]
    with Image.open(tmp_path / "with/samples.png") as sheet:
        assert sheet.width > 2 * 128 and sheet.height > 3 * 128


def test_a_run_killed_while_it_scores_ends_as_an_undisturbed_one(folder, values, tmp_path, monkeypatch):
    """The kill falls on the evaluation after step 2, whose checkpoint is not written yet."""
    evaluate = {"every": 2, "prompts": ["a dog"]}
    loop = {"steps": 4, "lr": 1e-3, "warmup_steps": 0, "bf16": False, "log_every": 1, "save_every_s": 0.0}
    recipe = recipe_from_dict(values(folder, evaluate=evaluate, loop=loop))
    whole = run_recipe(recipe, tmp_path / "whole")
    with monkeypatch.context() as patch:
        patch.setattr("blip3o.train.evaluation.contact_sheet", _killed)
        with pytest.raises(KeyboardInterrupt):
            run_recipe(recipe, tmp_path / "parts")
    resumed = run_recipe(recipe, tmp_path / "parts")
    for name, tensor in weights(whole).items():
        assert torch.equal(tensor, weights(resumed)[name]), name
    told = [[(r["step"], r.get("loss")) for r in rows(tmp_path / f) if "step" in r] for f in ("whole", "parts")]
    assert told[0] == told[1]
    for file in (tmp_path / "whole/samples").rglob("*.png"):
        assert file.read_bytes() == (tmp_path / "parts" / file.relative_to(tmp_path / "whole")).read_bytes()


def _killed(*args):
    raise KeyboardInterrupt


def test_a_command_gets_a_model_and_its_json_becomes_numbers(folder, values, tmp_path, monkeypatch):
    script = tmp_path / "score.py"
    script.write_text(
        "import json, os, pathlib, sys\n"
        "model, output, step = sys.argv[1:]\n"
        "assert pathlib.Path(model, 'config.json').is_file() and 'RANK' not in os.environ\n"
        "print('working'); print(json.dumps({'metrics': {'m': {'value': int(step), 'ci95': [0, 9]}}}))\n"
        "sys.exit('no luck' if step == '4' else 0)\n"
    )
    monkeypatch.setenv("SLURM_PROCID", "0")
    command = [sys.executable, str(script), "{model}", "{output}", "{step}"]
    recipe = recipe_from_dict(values(folder, evaluate={"every": 2, "command": command}))
    run_recipe(recipe, tmp_path)
    first, second = (row for row in rows(tmp_path) if row.get("evaluation"))
    assert (first["m"], first["m_low"], first["m_high"]) == (2, 0, 9)
    assert "exit code 1: no luck" in second["command_failed"]
    assert not list(tmp_path.glob("eval/*/model")) and "working" in (
        (tmp_path / "eval/step-00000002/command.log").read_text()
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"every": 2}, "evaluate does nothing: give a hook, a command or prompts"),
        ({"every": 0, "prompts": [" "]}, "every 0 is out of range.*prompts must be texts"),
        ({"every": 1, "hook": "evals"}, "'evals' must be module:function"),
        ({"every": 1, "prompts": ["a"], "args": {"b": 1}}, "args belong to a hook"),
        ({"every": 1, "prompts": ["a"], "hok": "b"}, "did you mean hook"),
        ({"hook": "a:b"}, "evaluate lacks every"),
        ("often", "evaluate must hold settings by name"),
    ],
)
def test_contradictions_are_refused_with_the_recipe(folder, values, settings, message):
    with pytest.raises(ConfigError, match=message):
        recipe_from_dict(values(folder, evaluate=settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"hook": "no.such.module:f"}, "module 'no.such.module' cannot be imported"),
        ({"hook": "blip3o.errors:nothing"}, "has no function 'nothing'"),
        ({"hook": HOOK, "args": {"less": 1}}, "evaluate.args: less is not allowed"),
        ({"command": ("no-such-command",)}, "'no-such-command' is no command on this machine"),
    ],
)
def test_hooks_are_looked_up_before_anything_loads(settings, message):
    with pytest.raises(ConfigError, match=message):
        find_hook(EvaluateSpec(every=1, **settings))


def test_only_numbers_are_taken():
    assert numbers_of({"a": 1, "b": {"value": None}}) == {"a": 1.0}
    with pytest.raises(TypeError, match="numbers by name, got a = 'x'"):
        numbers_of({"a": "x"})


def test_a_sheet_of_many_steps_shows_first_and_last(tmp_path):
    for step in range(40):
        folder = tmp_path / f"s/step-{step:08d}"
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), (step * 6, 0, 0)).save(folder / "00.png")
    contact_sheet(tmp_path / "s", ["a dog"], tmp_path / "sheet.png", cell_px=16)
    sheet = Image.open(tmp_path / "sheet.png")
    column = [sheet.getpixel((92, y))[0] for y in range(sheet.height) if sheet.getpixel((92, y))[1] == 0]
    assert sheet.height < 13 * 24 and min(column) == 0 and max(column) == 39 * 6
