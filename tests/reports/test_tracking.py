import json
import logging
import os
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from evals.results import load
from reports import tracking, tracking_db, tracking_values
from reports.html import write_report


def client(database: Path):
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=tracking_db.uri_of(database))


def set_aside(database: Path) -> list[Path]:
    return [p for p in database.parent.iterdir() if ".set-aside-" in p.name]


def test_figures_bounds_parameters_and_report_reach_mlflow(database, run_copy):
    write_report(run_copy)
    record = tracking.log_run(run_copy, tags={"who": "a test"})
    assert "error" not in record
    run = load(run_copy)
    stored = client(database).get_run(record["run_id"])
    for name, metric in run.results["metrics"].items():
        if metric["value"] is None:
            assert name not in stored.data.metrics
            continue
        assert stored.data.metrics[name] == metric["value"]
        assert stored.data.metrics[f"{name}_ci_low"] == metric["ci95"][0]
        assert stored.data.metrics[f"{name}_ci_high"] == metric["ci95"][1]
    assert stored.data.metrics["outputs/unscored"] == run.results["counts"]["unscored"] > 0
    assert stored.data.params["seed"] == "42"
    assert stored.data.params["model.weights_sha256"] == run.manifest["model"]["weights_sha256"]
    assert stored.data.tags["who"] == "a test"
    assert stored.data.tags["partial"] == "true"
    assert stored.data.tags["version.torch"] == run.manifest["versions"]["torch"]
    # An installed copy has no repository: then the tag is left out.
    commit = (run.manifest["git"] or {}).get("commit")
    assert stored.data.tags.get("mlflow.source.git.commit") == commit
    assert stored.info.status == "FINISHED"
    names = {artifact.path for artifact in client(database).list_artifacts(record["run_id"])}
    assert {"report.html", "results.json", "manifest.json", "scores.jsonl", "results.png"} <= names


def test_artifacts_lie_beside_the_database_wherever_the_command_runs(
    database, run_copy, tmp_path, monkeypatch
):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    record = tracking.log_run(run_copy, tracking_uri=tracking_db.uri_of(database))
    uri = client(database).get_run(record["run_id"]).info.artifact_uri
    assert uri.startswith((database.parent / "mlartifacts" / "blip3o-eval").as_uri())
    assert list(elsewhere.iterdir()) == []


def test_a_second_attempt_continues_its_run(database, run_copy):
    first = tracking.log_run(run_copy)
    second = tracking.log_run(run_copy, previous=first)
    assert second == first
    assert len(client(database).search_runs(["1"])) == 1


def test_a_run_that_the_store_lost_is_logged_anew(database, run_copy):
    record = tracking.log_run(run_copy, previous={"run_id": "0" * 32})
    assert "error" not in record
    assert record["run_id"] not in (None, "0" * 32)


def test_the_tracking_uri_of_the_environment_is_used(database, run_copy, tmp_path, monkeypatch):
    other = tmp_path / "other" / "mlflow.db"
    other.parent.mkdir()
    database.rename(other)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_db.uri_of(other))
    record = tracking.log_run(run_copy)
    assert client(other).get_run(record["run_id"]).info.status == "FINISHED"
    assert not database.exists()


@pytest.mark.parametrize("content", [b"", b"no database at all", b"SQLite format 3\0 torn"])
def test_an_unreadable_database_is_set_aside_and_built_anew(database, run_copy, caplog, content):
    database.write_bytes(content)
    with caplog.at_level(logging.WARNING, "reports"):
        record = tracking.log_run(run_copy)
    assert "error" not in record
    assert client(database).get_run(record["run_id"]).info.status == "FINISHED"
    (aside,) = set_aside(database)
    assert aside.read_bytes() == content
    assert "set aside" in caplog.text


def test_a_database_left_between_two_migrations_is_set_aside(database, run_copy):
    """Six processes that created one database left exactly this behind: no later process could open it."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE _alembic_tmp_runs (x INTEGER)")
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        connection.commit()
    record = tracking.log_run(run_copy)
    assert "error" not in record
    assert len(set_aside(database)) == 1


def test_a_database_with_runs_of_another_version_is_left_alone(database, run_copy, caplog):
    first = tracking.log_run(run_copy)
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
        connection.commit()
    before = database.read_bytes()
    with caplog.at_level(logging.WARNING, "reports"):
        record = tracking.log_run(run_copy, previous=first)
    assert "mlflow db upgrade" in record["error"]
    assert record["run_id"] == first["run_id"]
    assert database.read_bytes() == before
    assert set_aside(database) == []


def test_leftovers_of_a_killed_build_are_removed(database, run_copy):
    database.unlink()
    stray = database.with_name(".mlflow.db.building-dead")
    stray.write_bytes(b"half")
    assert "error" not in tracking.log_run(run_copy)
    assert not stray.exists()
    assert tracking_db.state_of(database, tracking_db._head_revision()) == "ready"


def test_a_database_replaced_while_the_process_lives_is_written_under_its_new_self(
    database, run_copy, mlflow_template
):
    tracking.log_run(run_copy)
    database.unlink()
    record = tracking.log_run(run_copy)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT run_uuid FROM runs").fetchall() == [(record["run_id"],)]


def failing_write(*args, **kwargs):
    raise RuntimeError("the disk\nis on fire")


def test_whatever_fails_becomes_one_warning_line(database, run_copy, monkeypatch, caplog):
    monkeypatch.setattr(tracking, "_write", failing_write)
    with caplog.at_level(logging.WARNING, "reports"):
        record = tracking.log_run(run_copy)
    assert record["error"] == "the disk is on fire"
    assert [r.getMessage() for r in caplog.records] == [
        "not tracked in MLflow (the disk is on fire); the run itself is complete, "
        f"`blip3o-eval track sync {run_copy}` logs it later"
    ]


def test_a_run_whose_upload_fails_is_marked_failed_and_can_be_continued(
    database, run_copy, monkeypatch
):
    with monkeypatch.context() as patched:
        patched.setattr(tracking, "_log_chart", failing_write)
        record = tracking.log_run(run_copy)
    assert client(database).get_run(record["run_id"]).info.status == "FAILED"
    again = tracking.log_run(run_copy, previous=record)
    assert again["run_id"] == record["run_id"] and "error" not in again
    assert client(database).get_run(record["run_id"]).info.status == "FINISHED"


def test_a_server_that_is_not_there_costs_a_warning(run_copy, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    uri = "http://somebody:secret@127.0.0.1:9"
    record = tracking.log_run(run_copy, tracking_uri=uri)
    assert record["run_id"] is None
    assert record["tracking_uri"] == "http://127.0.0.1:9"
    assert "secret" not in json.dumps(record)


def test_a_server_that_never_answers_costs_a_warning_within_its_time_limit(run_copy, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        uri = f"http://127.0.0.1:{silent.getsockname()[1]}"
        record = tracking.log_run(run_copy, tracking_uri=uri)
    assert record["status"] == "failed" and record["run_id"] is None
    assert time.monotonic() - began < 60


def test_an_unwritable_place_costs_a_warning(run_copy, tmp_path):
    (tmp_path / "file").write_text("")
    uri = tracking_db.uri_of(tmp_path / "file" / "mlflow.db")
    assert tracking.log_run(run_copy, tracking_uri=uri)["error"]


def test_a_folder_that_is_no_run_costs_a_warning(tmp_path):
    assert "is not a run folder" in tracking.log_run(tmp_path)["error"]


def test_a_deleted_experiment_is_named(database, run_copy):
    tracking.log_run(run_copy, experiment="old")
    mlflow = client(database)
    mlflow.delete_experiment(mlflow.get_experiment_by_name("old").experiment_id)
    error = tracking.log_run(run_copy, experiment="old")["error"]
    assert "experiment 'old' was deleted in MLflow" in error


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("overall", "overall"),
        ("CLIP(ViT-B/32)", "CLIP_ViT-B/32"),
        ("50 % of é", "50 _ of"),
        ("../../etc", "etc"),
        ("", "unnamed"),
    ],
)
def test_metric_names_are_made_acceptable(name, expected):
    from mlflow.utils.validation import _validate_metric_name

    made = tracking_values.metric_name(name)
    assert made == expected
    _validate_metric_name(made)


def test_addresses_of_databases():
    assert tracking_db.path_of("sqlite:////srv/x/mlflow.db") == Path("/srv/x/mlflow.db")
    assert tracking_db.path_of("sqlite:///runs/x.db") == Path.cwd() / "runs" / "x.db"
    assert tracking_db.path_of("http://host/runs.db") is None
    assert tracking_db.path_of("sqlite:///:memory:") is None


def test_importing_the_tracker_does_not_import_mlflow():
    code = "import sys, reports.tracking, reports.html; sys.exit('mlflow' in sys.modules or 'pandas' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_telemetry_is_off_before_mlflow_is_imported(database, run_copy):
    code = (
        "import os, sys, builtins\n"
        "real = builtins.__import__\n"
        "def spy(name, *rest, **more):\n"
        "    if name == 'mlflow' and 'mlflow' not in sys.modules:\n"
        "        print('telemetry off:', os.environ.get('MLFLOW_DISABLE_TELEMETRY'))\n"
        "    return real(name, *rest, **more)\n"
        "builtins.__import__ = spy\n"
        "from reports.tracking import log_run\n"
        f"print(log_run({str(run_copy)!r}).get('error'))\n"
    )

    environment = {k: v for k, v in os.environ.items() if k not in tracking.ENVIRONMENT}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines() == ["telemetry off: true", "None"]
    assert done.stderr == ""


def test_the_record_is_saved_before_anything_is_created_and_with_the_id_right_after(
    database, run_copy, monkeypatch
):
    saved, seen = [], []
    write = tracking._log_values
    monkeypatch.setattr(
        tracking, "_log_values", lambda *a: (seen.append(dict(saved[-1])), write(*a))
    )
    record = tracking.log_run(run_copy, save=lambda r: saved.append(dict(r)))
    assert saved[0]["status"] == "pending" and saved[0]["run_id"] is None and saved[0]["key"]
    assert seen == [{**saved[0], "run_id": record["run_id"]}]
    assert saved[-1] == record and record["status"] == "logged"


def test_a_process_killed_right_after_creating_its_run_leaves_no_second_one(
    database, run_copy, monkeypatch
):
    """The id that MLflow gave is lost with the process; the run is found by its key."""
    pending = {}

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(tracking, "_log_values", killed)
        patched.setattr(tracking, "_log_chart", killed)
        tracking.log_run(run_copy, save=lambda r: pending.update(pending or r))
    assert pending["run_id"] is None and pending["status"] == "pending"
    record = tracking.log_run(run_copy, previous=pending)
    (only,) = client(database).search_runs(["1"])
    assert only.info.run_id == record["run_id"] and only.info.status == "FINISHED"
    assert only.data.tags[tracking.KEY_TAG] == pending["key"]


def test_a_database_that_another_program_has_locked_costs_a_warning(
    database, run_copy, monkeypatch
):
    monkeypatch.setattr(tracking_db, "BUSY_TIMEOUT_S", 0.2)
    with closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        record = tracking.log_run(run_copy)
        assert "locked by another program" in record["error"] and record["run_id"] is None
        other.execute("ROLLBACK")
    assert tracking.log_run(run_copy, previous=record)["status"] == "logged"


@pytest.mark.slow  # MLflow waits 40 s of its own
def test_a_database_locked_half_way_costs_a_warning(database, run_copy, monkeypatch):
    monkeypatch.setattr(tracking_db, "BUSY_TIMEOUT_S", 0.2)
    write = tracking._log_values
    with closing(sqlite3.connect(database, isolation_level=None)) as other:

        def locked(*args):
            other.execute("BEGIN EXCLUSIVE")
            return write(*args)

        with monkeypatch.context() as patched:
            patched.setattr(tracking, "_log_values", locked)
            record = tracking.log_run(run_copy)
        assert "locked" in record["error"] and record["run_id"]
        other.execute("ROLLBACK")
    again = tracking.log_run(run_copy, previous=record)
    assert again["run_id"] == record["run_id"] and again["status"] == "logged"
    assert len(client(database).search_runs(["1"])) == 1


def test_another_evaluation_that_holds_the_lock_is_waited_for_and_named(
    database, run_copy, monkeypatch
):
    monkeypatch.setattr(tracking_db, "LOCK_TIMEOUT_S", 0.2)
    with tracking_db.locked(database):
        assert "in use by another evaluation" in tracking.log_run(run_copy)["error"]


def test_odd_names_and_values_reach_mlflow(database, run_copy):
    tags = {
        "x" * 1000: "y" * 1_000_000,
        "surro\udc80gate": "lone \udc80 and \0 nul",
        "a%b": "1",
        "a?b": "2",
        "\u202eleft": "\u202eright",
        "secret": "https://me:pw@host/",
    }
    record = tracking.log_run(run_copy, experiment="odd/ \udc80 name" + "z" * 999, tags=tags)
    assert "error" not in record
    stored = client(database).get_run(record["run_id"]).data.tags
    assert len(stored["x" * 250]) == 5000
    assert stored["surro_gate"] == "lone ? and  nul"
    assert {stored["a_b"], stored["a_b_2"]} == {"1", "2"}
    assert stored["secret"] == "https://host/"


def test_names_that_become_equal_stay_apart():
    made = tracking_values.unique_names({"CLIP(a)": 1, "CLIP[a]": 2, "CLIP{a}": 3})
    assert made == {"CLIP_a": 1, "CLIP_a_2": 2, "CLIP_a_3": 3}


@pytest.mark.slow
def test_processes_that_start_together_share_one_whole_database(database, run_copy):
    database.unlink()
    code = f"from reports.tracking import log_run; print(log_run({str(run_copy)!r}).get('error'))"
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [p.communicate()[0].strip() for p in processes] == ["None"] * 3
    assert len(client(database).search_runs(["1"])) == 3
    assert set_aside(database) == []
