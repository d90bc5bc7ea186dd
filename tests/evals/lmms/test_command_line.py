"""lmms-eval's own command with a model of ours, through its entry point, in one process and in two.

Slow (lmms-eval is imported three times): `pytest -m slow tests/evals/lmms/test_command_line.py`.
"""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import evals
from evals.lmms import catalog, package

HAS_ENTRY_POINT = any(p.name == "blip3o" for p in metadata.entry_points(group="lmms_eval.models"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        package.version() is None or not HAS_ENTRY_POINT,
        reason="needs lmms-eval beside an installed blip3o-eval: pip install 'blip3o-eval[understanding]'",
    ),
]
ROOT = Path(evals.__file__).parents[1]


def figures(launcher, folder, tmp_path, *further):
    output = tmp_path / folder
    environment = {
        **os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"),
        "PYTHONPATH": str(ROOT),
    }  # fmt: skip
    command = [
        sys.executable, "-m", *launcher, "lmms_eval", "--model", "blip3o", "--model_args", "pretrained=dummy",
        "--device", "cpu", "--batch_size", "5", "--tasks", "pope_local", "--include_path", str(tmp_path / "yaml"),
        "--output_path", str(output), *further,
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=tmp_path)
    found = list(output.rglob("*_results.json"))
    assert found, done.stdout[-2000:] + done.stderr[-2000:]  # it ends with 0 whatever happens
    return {k: v for k, v in json.loads(found[0].read_text())["results"]["pope_local"].items() if "," in k}


def test_one_process_and_two_give_the_figures_of_a_run_of_ours(made_up, tmp_path):
    path = made_up("pope", 21)
    folder = tmp_path / "yaml"
    folder.mkdir()
    (folder / "pope_local.yaml").write_text(
        f"include: {catalog.find('pope').path}\ntask: pope_local\ndataset_path: parquet\n"
        f"dataset_kwargs: {{data_files: {{test: {path}}}}}\n"
    )
    run = evals.evaluate(
        "lmms:pope", "dummy", data=str(path), output=tmp_path / "run", quiet=True, report=False,
        tracking__enabled=False,
    )  # fmt: skip
    chat = figures((), "chat", tmp_path)
    split = figures(
        ("torch.distributed.run", "--nproc_per_node", "2", "-m"), "two", tmp_path, "--force_simple"
    )
    for name in ("accuracy", "precision", "recall", "f1_score", "yes_ratio"):
        ours = run.results["metrics"][f"pope_{name}_lmms_eval"]["value"]
        assert chat[f"pope_{name},none"] == split[f"pope_{name},none"] == ours, name
