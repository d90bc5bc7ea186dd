"""Sweeps in MLflow: parent and children, what they say, and what becomes of them when something breaks."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from evals.sweeps.folder import SweepFolder
from reports import tracking_client, tracking_db, tracking_points, tracking_sweep
from reports.tracking_sweep import Tracker, is_up_to_date, log_sweep, read_record

EXPERIMENT = "blip3o-eval"


@pytest.fixture(scope="module")
def sweep(templates, sweeps, tmp_path_factory) -> Path:
    """Two cells, two seeds: four points say what twelve would."""
    cells = (sweeps.CELLS[0], sweeps.CELLS[5])
    wanted = sweeps.Wanted(templates, cells=cells, seeds=(0, 1), checkpoints=(0.5,), pictures=False)
    return sweeps.make_sweep(tmp_path_factory.mktemp("sweeps") / "small", wanted)


def client(uri: str):
    tracking_client.import_mlflow()
    from mlflow import MlflowClient

    return MlflowClient(tracking_uri=uri)


def logged(database: Path):
    """(client, parent runs, children by run name)."""
    c = client(tracking_db.uri_of(database))
    found = c.get_experiment_by_name(EXPERIMENT)
    runs = c.search_runs([found.experiment_id], max_results=1000) if found else []
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    children: dict[str, list] = {}
    for run in runs:
        if "mlflow.parentRunId" in run.data.tags:
            children.setdefault(run.info.run_name, []).append(run)
    return c, parents, children


def test_a_sweep_is_one_parent_with_a_child_for_each_point(database, sweep_copy):
    (sweep_copy / "report.html").write_text("<p>the page</p>")
    (sweep_copy / "table.csv").write_text("cell,value\n")
    record = log_sweep(sweep_copy, tags={"who": "me"})
    assert record["status"] == "logged", record
    assert is_up_to_date(sweep_copy)
    c, (parent,), children = logged(database)
    assert parent.info.status == "FINISHED" and parent.data.metrics["points/done"] == 4
    assert {a.path for a in c.list_artifacts(parent.info.run_id)} == {"report.html", "table.csv", "sweep.json"}
    assert parent.data.params["axis.target"] == '["clip", "vae"]'
    assert parent.data.tags["mlflow.source.git.commit"] == "a" * 40
    assert parent.data.tags["version.torch"] == "2.11" and parent.data.tags["who"] == "me"
    assert len(children) == 4 and all(len(runs) == 1 for runs in children.values())
    own = [run.info for (run,) in children.values()]  # the parent's time is that of the sweep, not of its logging
    created = datetime.fromisoformat("2026-11-22T02:59:00+00:00").timestamp() * 1000
    assert parent.info.start_time == created < min(info.start_time for info in own)
    assert parent.info.end_time == max(info.end_time for info in own)

    point_id = "target=vae,objective=flow,schedule=joint,seed=1"
    (child,) = children[point_id]
    folder = SweepFolder(sweep_copy)
    result = folder.result(point_id)
    assert child.info.status == "FINISHED" and child.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert child.data.params == {
        "target": "vae", "objective": "flow", "schedule": "joint", "seed": "1",
        "cell": "target=vae,objective=flow,schedule=joint",
    }  # fmt: skip
    overall = result.metrics["geneval/overall"]
    assert child.data.metrics["geneval/overall"] == overall.value
    assert child.data.metrics["geneval/overall_ci_low"] == overall.ci_low
    assert child.data.metrics["geneval/overall_ci_high"] == overall.ci_high
    assert child.data.metrics["train/parameters"] == result.parameters
    assert child.data.metrics["train/flops"] == child.data.metrics["train/flops_generator"] == 2.02e14
    assert child.data.tags["mlflow.source.git.commit"] == "a" * 40
    curve = c.get_metric_history(child.info.run_id, "curve/geneval/overall")
    rows = folder.curve(point_id)
    assert [(m.step, m.value) for m in curve] == [(r.step, r.metrics["geneval/overall"].value) for r in rows]
    assert len(rows) == 2
    digests = {d.dataset.name: d.dataset.digest for d in child.inputs.dataset_inputs}
    prompts = json.loads((sweep_copy / "points" / point_id / "eval/final/geneval/manifest.json").read_text())
    assert digests["geneval 1"] == prompts["task"]["prompts_sha256"][:36]
    assert digests["stage joint"] == folder.point(point_id).stages[0].rpartition("-")[2]
    (output,) = child.outputs.model_outputs
    model = c.get_logged_model(output.model_id)
    assert model.tags["weights_sha256"] == result.weights_sha256 and str(model.status) == "READY"
    assert model.params["target"] == "vae" and output.step == 400
    assert {m.key for m in model.metrics} >= {"geneval/overall", "vqa_stickers/accuracy"}
    assert {a.path for a in c.list_artifacts(child.info.run_id)} == {"point.json", "result.json", "curve.jsonl", "eval"}


def histories(c, children):
    """Everything that the first and the last child hold, times included."""
    return {
        name: {key: [(m.step, m.value, m.timestamp) for m in c.get_metric_history(runs[0].info.run_id, key)]
               for key in runs[0].data.metrics}
        for name, runs in sorted(children.items())[::3]
    }  # fmt: skip


def test_logging_again_changes_nothing_even_without_the_record(database, sweep_copy):
    first = log_sweep(sweep_copy)
    c, parents, children = logged(database)
    before = histories(c, children)
    assert log_sweep(sweep_copy)["run_id"] == first["run_id"]
    # A process that died before it noted anything but the key: all is found again by key.
    record = json.loads((sweep_copy / "mlflow.json").read_text())
    key = record["key"]
    (sweep_copy / "mlflow.json").unlink()
    tracking_sweep._save(sweep_copy, {"key": key})
    again = log_sweep(sweep_copy)
    assert again["status"] == "logged" and again["run_id"] == first["run_id"]
    assert {k: v["run_id"] for k, v in again["points"].items()} == {k: v["run_id"] for k, v in first["points"].items()}
    c, parents, children = logged(database)
    assert len(parents) == 1 and all(len(runs) == 1 for runs in children.values()) and len(children) == 4
    assert histories(c, children) == before
    found = c.search_logged_models([parents[0].info.experiment_id], max_results=100)
    assert len(found) == 4
    for runs in children.values():
        assert len(runs[0].outputs.model_outputs) == 1


def test_a_sweep_under_way_is_logged_as_far_as_it_is(database, sweep_copy, sweeps):
    ids = SweepFolder(sweep_copy).point_ids()
    sweeps.set_state(sweep_copy, ids[0], "failed", "out of memory: 8 GB asked, 4 GB there")
    sweeps.set_state(sweep_copy, ids[1], "running", started="2026-11-22T03:00:00+00:00")
    for point_id in ids[2:]:
        sweeps.set_state(sweep_copy, point_id, "pending")
    record = log_sweep(sweep_copy, final=False)
    assert record["status"] == "pending" and "error" not in record
    _, (parent,), children = logged(database)
    assert parent.info.status == "RUNNING" and set(children) == set(ids[:2])
    assert children[ids[0]][0].info.status == "FAILED"
    assert "8 GB" in children[ids[0]][0].data.tags["error"]
    assert children[ids[1]][0].info.status == "RUNNING"
    assert "curve/geneval/overall" in children[ids[1]][0].data.metrics
    assert "geneval/overall" not in children[ids[1]][0].data.metrics
    assert not is_up_to_date(sweep_copy)
    record = log_sweep(sweep_copy)  # the parent was stopped: what never ran stays without a run
    assert record["status"] == "logged"
    _, (parent,), children = logged(database)
    assert parent.info.status == "KILLED" and len(children) == 2


def test_damaged_points_and_figures_without_a_number(database, sweep_copy):
    ids = SweepFolder(sweep_copy).point_ids()
    points = sweep_copy / "points"
    (points / ids[0] / "result.json").write_text("{ torn")
    (points / ids[1] / "point.json").write_text("")
    curve = (points / ids[2] / "curve.jsonl").read_text()
    (points / ids[2] / "curve.jsonl").write_text(curve[:-40])
    rows = SweepFolder(sweep_copy).curve(ids[3])
    from dataclasses import replace

    from evals.sweeps.folder import write_result

    figure = replace(rows[0].metrics["geneval/overall"], value=float("inf"), ci_low=None)
    result = SweepFolder(sweep_copy).result(ids[3])
    with pytest.raises(ValueError):
        write_result(points / ids[3], replace(result, metrics={"geneval/overall": figure}))
    none = replace(figure, value=None)
    write_result(points / ids[3], replace(result, metrics={"geneval/overall": none}))
    record = log_sweep(sweep_copy)
    assert record["status"] == "logged", record
    _, (parent,), children = logged(database)
    assert len(children) == 3  # the one without a readable point.json is nothing that can be named
    assert "result.json" in children[ids[0]][0].data.tags["unreadable"]
    assert "curve.jsonl" in children[ids[2]][0].data.tags["unreadable"]
    assert "geneval/overall" not in children[ids[3]][0].data.metrics


def test_a_store_that_fails_costs_one_warning_and_is_left_alone_for_a_while(sweep_copy, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    uri = "http://me:hunter2@127.0.0.1:9"
    record = log_sweep(sweep_copy, tracking_uri=uri, final=False)
    assert record["status"] == "failed" and "hunter2" not in (sweep_copy / "mlflow.json").read_text()
    assert sum("not tracked" in r.getMessage() for r in caplog.records) == 1
    called = []
    monkeypatch.setattr(tracking_client, "new_client", lambda given: called.append(given) or 1 / 0)
    assert log_sweep(sweep_copy, tracking_uri=uri, final=False)["status"] == "failed" and called == []
    assert log_sweep(sweep_copy, tracking_uri=uri)["status"] == "failed" and called == [uri]
    assert "track sync" in caplog.records[-1].getMessage() and "hunter2" not in caplog.text


def test_killed_between_two_points_continues(database, sweep_copy, monkeypatch):
    log_point, seen = tracking_points.log_point, []

    def killed(*arguments):
        seen.append(arguments[3].id)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return log_point(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(tracking_sweep, "log_point", killed)
        with pytest.raises(KeyboardInterrupt):
            log_sweep(sweep_copy)
    assert len(logged(database)[2]) == 2
    assert log_sweep(sweep_copy)["status"] == "logged"
    _, parents, children = logged(database)
    assert len(parents) == 1 and len(children) == 4 and all(len(runs) == 1 for runs in children.values())
    assert all(runs[0].info.status == "FINISHED" for runs in children.values())


def test_the_tracker_holds_nothing_up(database, sweep_copy, monkeypatch):
    import threading

    gate, calls = threading.Event(), []

    def slow(root, *, final, **options):
        gate.wait(30)
        calls.append(final)
        return {"final": final}

    monkeypatch.setattr(tracking_sweep, "log_sweep", slow)
    tracker = Tracker(sweep_copy)
    for _ in range(50):
        tracker.changed()
    gate.set()
    assert tracker.finish() == {"final": True}
    assert calls[-1] is True and calls.count(True) == 1 and len(calls) <= 3


def test_two_sweeps_at_once_leave_the_database_sound(database, sweep_copy, tmp_path, sweeps):
    other = Path(shutil.copytree(sweep_copy, tmp_path / "other"))
    code = (
        "import sys; from reports.tracking_sweep import log_sweep; "
        "sys.exit(log_sweep(sys.argv[1])['status'] != 'logged')"
    )
    started = [subprocess.Popen([sys.executable, "-c", code, str(root)], cwd=tmp_path) for root in (sweep_copy, other)]
    assert [process.wait() for process in started] == [0, 0]
    assert tracking_db.state_of(database, tracking_db._head_revision()) == "ready"
    _, parents, children = logged(database)
    assert len(parents) == 2 and all(len(runs) == 2 for runs in children.values()) and len(children) == 4
    assert {read_record(sweep_copy)["run_id"], read_record(other)["run_id"]} == {p.info.run_id for p in parents}


def test_mlflow_is_imported_by_logging_alone_and_without_telemetry():
    code = (
        "import sys, os, reports.tracking_sweep; assert 'mlflow' not in sys.modules and 'pandas' not in sys.modules; "
        "from reports.tracking_client import import_mlflow; import_mlflow(); "
        "from mlflow.telemetry.client import get_telemetry_client; sys.exit(get_telemetry_client() is not None)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sync_takes_sweeps_and_leaves_alone_what_another_process_works_on(database, sweep_copy, tmp_path):
    from evals.io.locks import FileLock
    from evals.publish import run_folders, sync_sweep

    assert run_folders([tmp_path], with_sweeps=True) == [sweep_copy]
    assert len(run_folders([sweep_copy])) == 4 * 4  # for other commands its runs are runs
    assert sync_sweep(sweep_copy).outcome == "not tracked"
    with FileLock(sweep_copy / "lock").acquire():
        code = (
            "import sys; from pathlib import Path; from evals.publish import sync_sweep; "
            "print(sync_sweep(Path(sys.argv[1]), include_untracked=True).outcome)"
        )
        done = subprocess.run([sys.executable, "-c", code, str(sweep_copy)], capture_output=True, text=True)
        assert done.stdout.strip() == "busy", done.stderr
    done = sync_sweep(sweep_copy, include_untracked=True)
    assert done.outcome == "logged" and done.detail == read_record(sweep_copy)["run_id"]
    assert sync_sweep(sweep_copy).outcome == "already logged"


@pytest.mark.slow
def test_a_server_that_dies_in_the_middle_of_a_sweep_hurts_nothing(mlflow_server, sweep_copy, monkeypatch):
    from evals.publish import sync_sweep

    uri = mlflow_server.uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    log_point, seen = tracking_sweep.log_point, []

    def cut(*arguments):
        seen.append(arguments[3].id)
        if len(seen) == 3:
            mlflow_server.kill()
        return log_point(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(tracking_sweep, "log_point", cut)
        tracker = Tracker(sweep_copy)
        tracker.changed()
        record = tracker.finish()
    assert record["status"] == "failed" and record["tracking_uri"] == uri
    assert sum(p["digest"] is not None for p in record["points"].values()) == 2
    began = time.monotonic()
    assert log_sweep(sweep_copy, final=False)["status"] == "failed"
    assert time.monotonic() - began < 1  # left alone
    mlflow_server.start()
    done = sync_sweep(sweep_copy)
    assert done.outcome == "logged" and done.detail == record["run_id"], done
    c = client(uri)
    runs = c.search_runs([c.get_experiment_by_name(EXPERIMENT).experiment_id], max_results=100)
    assert len(runs) == 5 and {run.info.status for run in runs} == {"FINISHED"}
    child = next(run for run in runs if "mlflow.parentRunId" in run.data.tags)
    assert {a.path for a in c.list_artifacts(child.info.run_id)} >= {"point.json", "result.json", "curve.jsonl"}
