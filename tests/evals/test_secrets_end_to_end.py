"""No secret that a user gives on the way in is found in anything that comes out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PLUGIN = """
import logging
from evals.api import Identity
from evals.models.dummy import DummyModel

class Leaky(DummyModel):
    def __init__(self, spec, options):
        super().__init__()
        self.key = options.extra["api_key"]
        self.address = spec
        self.identity = Identity(
            f"leaky:{spec}", "1", "aa", "test", is_test_double=True,
            settings={"base_url": spec, **options.extra}, info={"token": self.key},
        )

    def generate(self, requests):
        import os
        logging.getLogger("evals").warning("POST %s with key %s", self.address, self.key)
        results = list(super().generate(requests))
        results[0] = RuntimeError(f"401 from {self.address}: key {self.key}, {os.environ['SERVICE_TOKEN']}")
        return results
"""
SECRETS = ("hunter2", "sk-given-1234567890abcdef", "Tok3n-of-the-environment")


def test_no_secret_reaches_files_reports_logs_or_screens(tmp_path: Path) -> None:
    info = tmp_path / "site" / "leaky-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[blip3o_eval.models]\nleaky = leaky_model:Leaky\n")
    (tmp_path / "site" / "leaky_model.py").write_text(PLUGIN)
    work = tmp_path / "work"
    work.mkdir()
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); "
        "from evals.cli.main import main; main(sys.argv[1:])"
    )
    environment = {
        **os.environ,
        "SERVICE_TOKEN": SECRETS[2],
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "1",
    }
    settings = (
        "--model", f"leaky:https://me:{SECRETS[0]}@host.example/v1", "--limit", "6", "--num-images", "1",
        "--set", f"model.args.api_key={SECRETS[1]}", "--tag", f"note=https://me:{SECRETS[0]}@host.example",
        "--tracking-uri", f"http://me:{SECRETS[0]}@127.0.0.1:9",
    )  # fmt: skip
    shown = ""
    for arguments in (
        ("run", "--task", "geneval", "--max-errors", "1", *settings),
        ("run", "--task", "geneval", "--max-errors", "0", "--json", *settings),  # resumes, complains
        ("config", "show", "--task", "geneval", *settings),
        ("track", "sync"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True, text=True, cwd=work, env=environment,
        )  # fmt: skip
        assert "Traceback" not in done.stderr, done.stderr
        shown += done.stdout + done.stderr
    assert "not tracked in MLflow" in shown and "POST https://host.example/v1 with key" in shown
    files = [path for path in work.rglob("*") if path.is_file()]
    assert {"manifest.json", "outputs.jsonl", "results.json", "report.html"} <= {p.name for p in files}
    for secret in SECRETS:
        assert secret not in shown
        for path in files:
            assert secret.encode() not in path.read_bytes(), (secret, path)
            assert secret not in str(path)
