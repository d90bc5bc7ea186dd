"""One definition on all three executors: the same files and the same table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals.sweeps import results
from evals.sweeps.comparable import comparable
from evals.sweeps.executors import open_executor
from evals.sweeps.executors.files import read_handle
from evals.sweeps.runner import run_sweep

SETTINGS: dict[str, dict[str, Any]] = {
    "local": {"total_cores": 2},
    "slurm": {"cluster": "local"},
    "ray": {"total_cores": 2},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slurm", "ray"])
def test_a_sweep_gives_the_same_table_as_in_the_local_pool(
    name: str, tmp_path: Path, planned: Callable[..., Any]
) -> None:
    """Two objectives and two seeds: a shared stage and two points each, on fakes. About a minute on two idle cores."""
    pytest.importorskip({"slurm": "submitit", "ray": "ray"}[name])
    plan = planned(seeds=[0, 1], evaluate={"at": [1]})
    tables, contents = {}, {}
    for executor in ("local", name):
        root = tmp_path / executor
        done = run_sweep(
            plan,
            root,
            lambda folder, executor=executor: open_executor(
                executor, folder, {"cores": 1, **SETTINGS[executor]}, 2
            ),
            max_parallel=2,
            is_quiet=True,
        )
        assert done.problem is None and len(done.done) == 4
        handles = [read_handle(done.folder.point_folder(point)) for point in done.done]
        assert {handle.executor for handle in handles if handle is not None} == {executor}
        tables[executor] = results.build(done.folder).to_json()
        contents[executor] = comparable(root)
    assert contents["local"] == contents[name]
    assert _without_seconds(tables["local"]) == _without_seconds(tables[name])


def _without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: _without_seconds(v) for k, v in value.items() if "seconds" not in k and k != "folder"
        }
    return [_without_seconds(v) for v in value] if isinstance(value, list) else value
