"""What becomes of a run whose logging failed, was interrupted, or lost its server half way."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evals.errors import InputError
from evals.publish import is_logged, run_folders, sync
from evals.results import load
from evals.store import RunStore
from reports import tracking, tracking_client, tracking_db

ROOT = Path(__file__).resolve().parents[2]
CLI = [sys.executable, "-c", "from evals.cli.main import main; main()"]


def client(uri: str):
    tracking.import_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def runs_in(uri: str, experiment: str = "blip3o-eval") -> list:
    found = client(uri).get_experiment_by_name(experiment)
    return client(uri).search_runs([found.experiment_id]) if found else []


def test_sync_logs_what_failed_once_and_leaves_the_rest_alone(database, run_copy, monkeypatch):
    assert sync(run_copy).outcome == "not tracked"
    with monkeypatch.context() as patched:
        patched.setattr(tracking, "_log_chart", lambda *a: 1 / 0)
        failed = sync(run_copy, include_untracked=True)
    assert failed.outcome == "failed" and "division by zero" in failed.detail and failed.is_problem
    record = load(run_copy).manifest["mlflow"]
    assert record["status"] == "failed" and record["run_id"] and not is_logged(record)
    done = sync(run_copy)
    assert done.outcome == "logged" and done.detail == record["run_id"]
    assert is_logged(load(run_copy).manifest["mlflow"])
    assert sync(run_copy).outcome == "already logged"
    (only,) = runs_in(tracking_db.uri_of(database))
    assert only.info.status == "FINISHED"


def test_sync_leaves_a_run_alone_that_another_process_works_on(database, run_copy):
    store = RunStore(run_copy)
    store.lock()
    try:
        busy = sync(run_copy, include_untracked=True)
    finally:
        store.close()
    assert busy.outcome == "busy" and busy.is_problem


def test_a_password_in_the_environment_is_used_and_not_kept(run_copy, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    uri = "http://me:hunter2@127.0.0.1:9"
    assert sync(run_copy, tracking_uri=uri, include_untracked=True).outcome == "failed"
    assert "hunter2" not in (run_copy / "manifest.json").read_text()
    seen = []
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setattr(tracking_client, "new_client", lambda given: seen.append(given) or 1 / 0)
    sync(run_copy)
    assert seen == [uri]


def test_run_folders_are_found_below_a_place(run_copy, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    other = Path(shutil.copytree(run_copy, tmp_path / "deep" / "er" / "run"))
    shutil.copytree(run_copy, tmp_path / "mlartifacts" / "1" / "abc" / "artifacts")  # MLflow's copy
    assert run_folders([tmp_path]) == [other, run_copy]
    assert run_folders([run_copy, run_copy]) == [run_copy]
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="holds none"):
        run_folders([empty])


def test_the_command_says_what_became_of_each_run(database, run_copy):
    done = subprocess.run(
        [*CLI, "track", "sync", str(run_copy), "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outcome"] == "not tracked"


@pytest.mark.slow
def test_a_process_killed_while_it_logs_leaves_one_mlflow_run(database, tmp_path):
    """SIGKILL at six random moments after evaluation ended; then the same command finishes."""
    command = [
        *CLI, "run", "--task", "geneval", "--model", "dummy", "--limit", "6", "--num-images", "1",
        "--output", "out",
    ]  # fmt: skip
    rng = random.Random(3)
    interrupted = 0
    for _ in range(6):
        process = subprocess.Popen(
            command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
        )
        for line in process.stderr:
            if "track in MLflow" in line:
                break
        time.sleep(rng.uniform(0.5, 6.0))
        interrupted += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stderr.close()
    assert subprocess.run(command, cwd=tmp_path, capture_output=True).returncode == 0
    record = load(tmp_path / "out").manifest["mlflow"]
    assert is_logged(record), record
    (only,) = runs_in(tracking_db.uri_of(database))
    assert only.info.run_id == record["run_id"] and only.info.status == "FINISHED"
    assert only.data.tags[tracking.KEY_TAG] == record["key"]
    assert interrupted


@pytest.mark.slow
def test_a_server_that_dies_half_way_costs_a_warning_and_sync_finishes_the_same_run(
    mlflow_server, run_copy, monkeypatch
):
    uri = mlflow_server.uri
    write = tracking._log_values

    def cut(*arguments):
        write(*arguments)
        mlflow_server.kill()  # the figures are there, report and pictures are not

    with monkeypatch.context() as patched:
        patched.setattr(tracking, "_log_values", cut)
        failed = sync(run_copy, tracking_uri=uri, include_untracked=True)
    assert failed.outcome == "failed"
    record = load(run_copy).manifest["mlflow"]
    assert record["run_id"] and record["status"] == "failed" and record["tracking_uri"] == uri
    assert sync(run_copy).outcome == "failed"  # still down: nothing changes
    assert load(run_copy).manifest["mlflow"]["key"] == record["key"]
    mlflow_server.start()
    done = sync(run_copy)
    assert done.outcome == "logged" and done.detail == record["run_id"]
    (only,) = runs_in(uri)
    assert only.info.status == "FINISHED"
    names = {artifact.path for artifact in client(uri).list_artifacts(record["run_id"])}
    assert {"results.json", "manifest.json", "results.png"} <= names
