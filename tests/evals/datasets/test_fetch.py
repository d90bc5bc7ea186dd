"""Data from a hub that breaks off: what has arrived is kept, what is here is known, what is wrong is said in a line."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from evals.cli.main import main
from evals.datasets import fetch as fetching
from evals.datasets.fetch import fetch
from evals.datasets.record import RECORD_NAME, read_record
from evals.errors import InputError, StoreError
from evals.plugins.lookup import find_task

_SPEC = importlib.util.spec_from_file_location("hub_server", Path(__file__).parent / "hub_server.py")
assert _SPEC is not None and _SPEC.loader is not None
hub_server = importlib.util.module_from_spec(_SPEC)
sys.modules["hub_server"] = hub_server
_SPEC.loader.exec_module(hub_server)

REPOSITORY = "lmms-lab-encoder/MME"
WANTED = "data/test-00000-of-00001.parquet"


@pytest.fixture
def hub(golden: Path) -> Iterator[Any]:
    data = (golden / "understanding" / "mme.parquet").read_bytes()
    server = hub_server.Hub(
        REPOSITORY, {WANTED: data, "data/train-00000-of-00001.parquet": b"x", "README.md": b"# MME"}
    )
    running = server.start()
    yield server
    running.shutdown()


def call(*arguments: str, url: str = "", **more: str) -> subprocess.CompletedProcess[str]:
    """The command as a user runs it: the hub's address is read when huggingface_hub is imported."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "BLIP3O_EVAL_"))}
    environment |= {"HF_ENDPOINT": url, "HF_HUB_DISABLE_TELEMETRY": "1", **more}
    return subprocess.run(
        [sys.executable, "-m", "evals.cli.main", "data", *arguments],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_a_download_that_breaks_off_goes_on_where_it_was(hub: Any, tmp_path: Path) -> None:
    # huggingface_hub writes 10 MiB at a time; what is shorter is lost when a transfer breaks off.
    hub.files[WANTED] += bytes(24 * 2**20)
    hub.breaks = 100
    root, size = tmp_path / "data", len(hub.files[WANTED])
    broken = call("get", "--task", "mme", "--output", str(root), url=hub.url)
    assert broken.returncode == 1, broken.stderr
    *_, line = broken.stderr.strip().splitlines()
    command = f"`blip3o-eval data get --task mme --output {root}`"
    assert f"{WANTED} broke off; {command} goes on from there" in line
    assert "Traceback" not in broken.stderr
    record = read_record(root / "mme")
    assert record is not None and not record.is_complete and record.revision == hub_server.COMMIT
    part = root / "mme" / f"{WANTED}.part"
    assert 10 * 2**20 <= part.stat().st_size < size
    before = len(hub.served)
    hub.breaks = 0
    done = call("get", "--task", "mme", "--output", str(root), "--json", url=hub.url)
    assert done.returncode == 0, done.stderr
    [(name, start, sent)] = hub.served[before:]
    assert name == WANTED and start > 0 and start + sent == size, "it began anew"
    assert (root / "mme" / WANTED).read_bytes() == hub.files[WANTED] and not part.exists()
    found = json.loads(done.stdout)
    assert found["revision"] == hub_server.COMMIT and found["is_complete"]
    assert set(found["files"]) == {WANTED}, "other splits were fetched"

    again = call("get", "--task", "mme", "--output", str(root), url="http://127.0.0.1:9")
    assert again.returncode == 0 and "complete, 1 files" in again.stderr


def test_without_network_one_line_says_so(tmp_path: Path) -> None:
    found = call("get", "--task", "mme", "--output", str(tmp_path / "d"), url="http://127.0.0.1:9")
    lines = found.stderr.strip().splitlines()
    assert found.returncode == 2 and len(lines) == 1 and not (tmp_path / "d").exists()
    assert "127.0.0.1 does not answer; run `blip3o-eval data get --task mme" in lines[0]
    found = call("get", "--task", "mme", "--output", str(tmp_path / "d"), HF_HUB_OFFLINE="1")
    assert found.returncode == 2 and "HF_HUB_OFFLINE is set" in found.stderr


class Task:
    hub_id = REPOSITORY

    def has(self, name: str) -> bool:
        return name.startswith("data/test")


@pytest.fixture
def local(hub: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hub in this process, without the transfer: files appear as they are in its memory."""

    def transfer(name: str, size: int, record: Any, path: Path) -> None:
        path.write_bytes(hub.sent.get(name, hub.files[name]))

    hub.sent = {}
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)
    monkeypatch.setattr(fetching, "_transfer", transfer)
    return hub


def test_a_file_that_is_not_what_was_promised_is_removed(local: Any, tmp_path: Path) -> None:
    local.sent[WANTED] = local.files[WANTED][:-1] + b"?"
    with pytest.raises(fetching.FetchError, match="is not what the hub promised .* and was removed"):
        fetch("mme", Task(), tmp_path / "mme")
    assert not (tmp_path / "mme" / WANTED).exists()
    local.sent = {}
    assert fetch("mme", Task(), tmp_path / "mme").is_complete


def test_a_download_keeps_its_commit_while_the_branch_moves(local: Any, tmp_path: Path) -> None:
    local.sent[WANTED] = b"torn"
    with pytest.raises(fetching.FetchError):
        fetch("mme", Task(), tmp_path / "mme")
    local.sent, asked = {}, []
    import huggingface_hub

    real = huggingface_hub.HfApi.dataset_info

    def info(self: Any, repository: str, revision: str, **more: Any) -> Any:
        asked.append(revision)
        return real(self, repository, revision=revision, **more)

    huggingface_hub.HfApi.dataset_info = info  # type: ignore[method-assign]
    try:
        fetch("mme", Task(), tmp_path / "mme")
    finally:
        huggingface_hub.HfApi.dataset_info = real  # type: ignore[method-assign]
    assert asked == [hub_server.COMMIT]


@pytest.mark.parametrize(
    ("status", "code", "error", "message"),
    [
        (403, "GatedRepo", Exception, "is gated: accept its terms at https://huggingface.co/datasets/lmms-lab"),
        (404, "RepoNotFound", Exception, "does not exist or is private"),
        (404, "RevisionNotFound", InputError, "has no such revision"),
        (400, "", fetching.FetchError, "try again later"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    local: Any, tmp_path: Path, status: int, code: str, error: Any, message: str
) -> None:
    local.status, local.headers = status, {"X-Error-Code": code}
    with pytest.raises(error, match=message) as caught:
        fetch("mme", Task(), tmp_path / "mme", revision="v9")
    assert "\n" not in str(caught.value)


def test_a_repository_of_another_layout_and_a_full_disk_are_said(
    local: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Other(Task):
        def has(self, name: str) -> bool:
            return False

    with pytest.raises(InputError, match="holds no file of task 'mme'"):
        fetch("mme", Other(), tmp_path / "mme")
    usage = type("Usage", (), {"free": 10})()
    monkeypatch.setattr(fetching.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(StoreError, match="the files need 0.0 GB and 0.0 GB are free"):
        fetch("mme", Task(), tmp_path / "mme")


def checked(*arguments: str) -> tuple[int, Any]:
    found = CliRunner().invoke(main, ["data", "check", "--json", *arguments])
    return found.exit_code, json.loads(found.stdout.splitlines()[0])


def test_check_says_what_is_here_missing_and_damaged(local: Any, tmp_path: Path) -> None:
    root = tmp_path / "mme"
    fetch("mme", Task(), root)
    code, found = checked("--task", "mme", "--data", str(tmp_path), "--pictures")
    # 20 made-up documents of an official 2,374
    assert (code, found["state"], found["rows"], found["official_rows"]) == (1, "incomplete", 20, 2374)
    assert found["pictures"] == 20 and found["origin"]["revision"] == hub_server.COMMIT
    assert [file["state"] for file in found["files"]] == ["ok"] and len(found["digest"]) == 64
    data = (root / WANTED).read_bytes()
    (root / WANTED).write_bytes(data[:-9] + b"?" + data[-8:])
    code, found = checked("--task", "mme", "--data", str(root))
    assert (code, found["state"]) == (1, "damaged") and "is damaged: `blip3o-eval data get" in found["problem"]
    (root / WANTED).unlink()
    (root / "data" / "test-00001-of-00002.parquet").write_bytes(data)
    code, found = checked("--task", "mme", "--data", str(root))
    assert (code, found["state"]) == (1, "incomplete") and "missing" in found["problem"]
    assert {one["state"] for one in found["files"]} == {"missing", "unrecorded"}
    (root / RECORD_NAME).write_text("{}")
    code, found = checked("--task", "mme", "--data", str(root))
    assert code == 1 and "cannot be used" in found["problem"]


def test_check_names_a_wrong_row_and_a_task_without_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BLIP3O_EVAL_DATA", str(tmp_path))
    code, found = checked("--task", "mmmu")
    assert (code, found["state"]) == (1, "missing") and "data get --task mmmu" in found["problem"]
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "a.png", "question": "q", "answer": "maybe"}')
    code, found = checked("--task", "mme", "--data", str(tmp_path))
    assert (code, found["state"]) == (1, "damaged") and "metadata.jsonl, row 0" in found["problem"]
    listed = CliRunner().invoke(main, ["data", "check", "--json"])
    found_tasks = [json.loads(line)["task"] for line in listed.stdout.splitlines()]
    official = ["mmbench", "mme", "mmmu", "realworldqa", "seedbench", "textvqa", "vqav2"]
    assert listed.exit_code == 0 and sorted(found_tasks) == official, "each data set is listed once"
    for task in ("geneval", "vqa_stickers"):
        refused = CliRunner().invoke(main, ["data", "get", "--task", task])
        assert refused.exit_code == 2 and "reads no data set of the hub" in refused.output


def test_editions_of_a_task_read_its_documents(golden: Path, tmp_path: Path) -> None:
    (tmp_path / "mme.parquet").write_bytes((golden / "understanding" / "mme.parquet").read_bytes())
    assert len(find_task("mme_likelihood", tmp_path).samples()) == 20
    code, found = checked("--task", "mme_likelihood,mme", "--data", str(tmp_path))
    assert (code, found["task"], found["rows"]) == (1, "mme", 20)
