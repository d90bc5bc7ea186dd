from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evals.config import RunConfig
from evals.errors import MissingRequirementError, UnknownNameError, UsageError
from evals.plugins.lookup import find_judge, find_model, find_task


def config(model: str = "dummy", judge: str = "auto") -> RunConfig:
    return RunConfig.model_validate({"task": "geneval", "model": model, "judge": judge})


def test_a_name_may_carry_an_argument() -> None:
    assert find_model(config("dummy:size=32")).identity.settings == {"size": 32}
    for spec, message in (
        ("dummy:siz=32", "Did you mean: size"),
        ("dummy:size=x", "give a number"),
    ):
        with pytest.raises(UsageError, match=message):
            find_model(config(spec))


def test_an_unknown_model_gets_a_suggestion_and_the_other_ways() -> None:
    with pytest.raises(UnknownNameError, match=r"Did you mean: nano\? A folder or a hub id"):
        find_model(config("nanoo"))


@pytest.mark.parametrize("folder", ["./no/such/folder", "/no/such/folder"])
def test_a_missing_folder_is_named(folder: str) -> None:
    with pytest.raises(UsageError, match=f"model folder {folder} does not exist"):
        find_model(config(folder))


def test_auto_takes_the_fake_judge_for_the_fake_model_only() -> None:
    task = find_task("geneval")
    assert find_judge(config(), task, find_model(config())).identity.name == "dummy"
    with pytest.raises(UnknownNameError, match="Unknown judge 'stikers'. Did you mean: stickers"):
        find_judge(config(judge="stikers"), task, find_model(config()))


@pytest.mark.parametrize(
    ("environment", "reason"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set"),
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "127.0.0.1 does not answer"),
        ({"HF_ENDPOINT": "https://hub.invalid"}, "hub.invalid does not answer"),
    ],
)
def test_a_hub_id_without_network_names_the_command_that_fetches_it_at_once(
    environment: dict[str, str], reason: str, tmp_path: Path
) -> None:
    code = (
        "from evals.config import RunConfig\nfrom evals.plugins.lookup import find_model\nimport sys\n"
        "try:\n find_model(RunConfig.model_validate({'task': 'geneval', 'model': 'owner/name'}))\n"
        "except Exception as error:\n print(type(error).__name__, error)\n"
        "assert 'torch' not in sys.modules"
    )
    env = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()}
    env |= {"HF_HOME": str(tmp_path), **environment}
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert time.monotonic() - began < 30
    assert done.stdout.startswith(MissingRequirementError.__name__)
    assert reason in done.stdout and "`hf download owner/name` fetches it" in done.stdout
    assert done.stdout.count("\n") == 1
