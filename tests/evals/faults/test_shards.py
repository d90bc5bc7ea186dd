"""Several processes on one run: shards that exclude, wait for, and finish each other."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from evals import registry
from evals.config import RunConfig, public_config, resolve, set_key
from evals.errors import LockedError, UsageError
from evals.results import comparable, load
from evals.runner import merge
from evals.settings.files import parse_assignment
from evals.unfinished import command_of


def wait(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture
def registered(request: pytest.FixtureRequest):
    """The fruit task under its name, so that commands find it."""
    task = request.getfixturevalue("evaluate").__globals__["_tasks"].FruitTask(3)
    registry.tasks.register("fruit", lambda: task)
    yield
    registry.tasks._entries.pop("fruit")


@pytest.fixture
def busy(evaluate, in_child, tmp_path: Path):
    """A shard that works in another process until the test ends."""
    root = tmp_path / "run"
    pid = in_child(lambda: evaluate(root, shard=(1, 2), model={"size": 16, "seconds": 5}))
    deadline = time.monotonic() + 60
    while not list(root.glob(".working-*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    yield pid
    os.kill(pid, 9)
    wait(pid)


def test_the_same_shard_twice_is_refused_by_name_and_others_are_not(
    evaluate, tmp_path: Path, busy: int
) -> None:
    root = tmp_path / "run"
    with pytest.raises(LockedError, match=rf"process {busy}\) works on this shard 1/2; wait"):
        evaluate(root, shard=(1, 2))
    with pytest.raises(
        LockedError, match=rf"shard-1-of-2 \(process {busy}\) of this run still works; wait for"
    ):
        evaluate(root)
    assert evaluate(root, shard=(0, 2)).pending > 0


def test_merge_names_torn_damaged_and_missing_shards_and_their_commands_finish(
    evaluate, registered, tmp_path: Path, whole: Path
) -> None:
    root = tmp_path / "my run"
    for index in range(3):
        evaluate(root, shard=(index, 4), model={"size": 64})  # what the name alone makes
    torn, damaged = root / "outputs.1-of-4.jsonl", root / "outputs.2-of-4.jsonl"
    torn.write_bytes(torn.read_bytes()[:-20])
    damaged.write_bytes(damaged.read_bytes().replace(b'"ok"', b'"oK"', 1))
    with pytest.raises(UsageError) as caught:
        merge(root, quiet=True)
    text = str(caught.value)
    assert f"{root}: 16 of 36 outputs are missing, the first is fruit-002, picture 2" in text
    assert "shard 1/4, torn at its end, lacks 5 of 10" in text
    assert "shard 2/4, damaged at outputs.2-of-4.jsonl:1, lacks 5 of 10" in text
    assert "shard 3/4, without a file outputs.3-of-4.jsonl, lacks 6 of 6" in text
    assert "shard 0/4" not in text
    commands = re.findall(r"blip3o-eval run .*", text)
    assert len(commands) == 3 and all("--model dummy" in c for c in commands)


def test_the_command_of_a_run_says_everything_that_is_not_default() -> None:
    settings = {"task": "geneval", "limit": 3, "metrics": ["x"], "generation": {"steps": 4}}
    config = RunConfig(**settings, model={"name": "a b", "args": {"k": 1}})
    words = shlex.split(command_of(public_config(config), Path("my run"), (1, 4)))
    assert words[:4] == ["blip3o-eval", "run", "--task", "geneval"]
    layer: dict = {"task": "geneval"}
    for flag, value in zip(words[4::2], words[5::2], strict=True):
        if flag == "--set":
            set_key(layer, *parse_assignment(value))
        elif flag in ("--limit", "--model"):
            set_key(layer, flag.removeprefix("--"), value)
    assert resolve([("the command", layer)])[0] == config
    assert words[-4:] == ["--output", "my run", "--shard", "1/4"]


def test_an_unfinished_whole_run_is_named_with_its_command(
    evaluate, registered, tmp_path: Path
) -> None:
    class Dies(BaseException): ...

    from evals.models.dummy import DummyModel

    class Mortal(DummyModel):
        def generate(self, requests):
            if requests[0].sample_id != "fruit-000":
                raise Dies
            return super().generate(requests)

    with pytest.raises(Dies):
        evaluate(tmp_path / "run", made=Mortal())
    with pytest.raises(
        UsageError, match="31 of 36 outputs are missing.*blip3o-eval run --task fruit"
    ):
        merge(tmp_path / "run", quiet=True)


def test_the_named_command_finishes_the_run(evaluate, registered, tmp_path: Path) -> None:
    """geneval through the command line, so that nothing but the printed words counts."""
    program = [sys.executable, "-c", "from evals.cli.main import main; main()"]
    settings = "run --task geneval --model dummy --limit 7 --num-images 2 --batch-size 3 --no-track -q"
    root = tmp_path / "a run"

    def run(words: list[str]) -> subprocess.CompletedProcess:
        return subprocess.run([*program, *words], capture_output=True, text=True)

    first = run([*settings.split(), "--output", str(root), "--shard", "0/2"])
    assert first.returncode == 0, first.stderr
    refused = run(["merge", str(root)])
    assert refused.returncode == 2
    (command,) = re.findall(r"blip3o-eval (run .*)", refused.stderr)
    done = run(shlex.split(command))
    assert done.returncode == 0, done.stderr
    assert load(root).is_finished and (root / "report.html").exists()


@pytest.mark.slow
def test_64_shards_at_once_end_in_one_run(
    evaluate, in_child, tmp_path: Path, whole: Path
) -> None:
    root = tmp_path / "run"
    children = [
        in_child(lambda i=i: evaluate(root, shard=(i, 64), batch_size=1)) for i in range(64)
    ]
    assert [wait(pid) for pid in children] == [0] * 64
    one = evaluate(tmp_path / "one", batch_size=1)
    assert comparable(root) == comparable(one.root)
    assert load(root).is_finished and not list(root.glob("outputs.*-of-*.jsonl"))


@pytest.mark.slow
def test_torchrun_with_two_processes(tmp_path: Path) -> None:
    run = "from evals.cli.main import main; main()"
    settings = "run --task geneval --model dummy --limit 12 --no-track -q --output".split()
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*launch, "--no-python", sys.executable, "-c", run, *settings, str(tmp_path / "two")]
    subprocess.run(command, check=True, capture_output=True)
    alone = [sys.executable, "-c", run, *settings, str(tmp_path / "one")]
    subprocess.run(alone, check=True, capture_output=True)
    assert comparable(tmp_path / "two") == comparable(tmp_path / "one")
    shards = {s["shard"] for s in load(tmp_path / "two").manifest["sessions"]}
    assert shards == {"0/2", "1/2"}
