"""The package as installed: whose folders are imported, what is bundled, what a start costs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from importlib import metadata, resources
from pathlib import Path

import pytest

DISTRIBUTION = "blip3o-eval"
PACKAGES = ("blip3o", "evals", "tasks", "reports")
HEAVY = (
    "torch",
    "transformers",
    "diffusers",
    "mlflow",
    "lmms_eval",
    "pandas",
    "scipy",
    "matplotlib",
)

BUNDLED = (
    "blip3o/py.typed",
    "evals/py.typed",
    "tasks/py.typed",
    "reports/py.typed",
    "tasks/data/geneval/evaluation_metadata.jsonl",
    "tasks/data/geneval/evaluation_metadata_long.jsonl.gz",
    "tasks/data/geneval/LICENSE",
    "tasks/data/geneval/LICENSE.bagel-apache-2.0",
    "tasks/data/dpg_bench/prompts.jsonl.gz",
    "tasks/data/dpg_bench/LICENSE",
    "tasks/data/t2i_compbench/complex_val.txt",
    "tasks/data/t2i_compbench/LICENSE",
    "tasks/data/partiprompts/PartiPrompts.tsv.gz",
    "tasks/data/partiprompts/LICENSE",
    "tasks/data/leaderboard/published_scores.json",
    "blip3o/stickers/assets/sprites.webp",
)


@pytest.fixture
def distribution() -> metadata.Distribution:
    try:
        return metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{DISTRIBUTION} is not installed here, only its source folder is on the path")


def python(*args: str, cwd: Path) -> str:
    result = subprocess.run([sys.executable, *args], cwd=cwd, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_four_packages_imported_outside_the_source_folder_lie_side_by_side(
    tmp_path: Path,
) -> None:
    # Another distribution on the public index has an import package `evals`, and more have `tests`.
    code = f"import json, importlib.util as u; print(json.dumps([u.find_spec(n).origin for n in {PACKAGES}]))"
    origins = [Path(origin) for origin in json.loads(python("-c", code, cwd=tmp_path))]
    assert [origin.name for origin in origins] == ["__init__.py"] * 4
    assert len({origin.parent.parent for origin in origins}) == 1
    root = origins[0].parent.parent
    for ours in (
        "blip3o/errors.py",
        "evals/api.py",
        "tasks/generation/geneval.py",
        "reports/html.py",
    ):
        assert (root / ours).is_file()


def test_the_tests_run_on_the_same_files(distribution: metadata.Distribution) -> None:
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        assert spec is not None and spec.origin is not None
        installed = distribution.locate_file(f"{name}/__init__.py")
        assert Path(spec.origin).resolve() == Path(str(installed)).resolve()


def test_versions_agree(distribution: metadata.Distribution) -> None:
    import blip3o

    assert distribution.version == blip3o.__version__


def test_metadata_says_what_is_promised(distribution: metadata.Distribution) -> None:
    scripts = {e.name: e.value for e in distribution.entry_points if e.group == "console_scripts"}
    assert scripts == {"blip3o": "blip3o.cli:main", "blip3o-eval": "evals.cli.main:main"}
    assert "Private :: Do Not Upload" in distribution.metadata.get_all("Classifier")
    extras = {"understanding", "fd", "slurm", "ray", "test"}
    assert extras <= set(distribution.metadata.get_all("Provides-Extra"))


@pytest.mark.parametrize("path", BUNDLED)
def test_data_is_bundled(path: str) -> None:
    package, _, rest = path.partition("/")
    assert resources.files(package).joinpath(rest).is_file()


def run_cli(*args: str) -> str:
    """Code that runs `blip3o-eval ARGS` and then reports, on stderr, which heavy modules it imported."""
    return (
        "import sys\n"
        "from evals.cli.main import main\n"
        f"sys.argv = {['blip3o-eval', *args]!r}\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as stop:\n"
        "    assert not stop.code, stop.code\n"
        f"print(sorted(set({HEAVY!r}) & set(sys.modules)), file=sys.stderr)\n"
    )


STARTS = {("--help",): 3.0, ("list", "tasks"): 4.0, ("score", "--help"): 4.0}
"""Arguments -> how many times the processor time of `import click` they may cost."""


@pytest.mark.parametrize("args", STARTS, ids=" ".join)
def test_starting_imports_nothing_heavy(args: tuple[str, ...], tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-c", run_cli(*args)], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.splitlines()[-1] == "[]"
    assert result.stdout


def cpu_seconds(code: str, cwd: Path) -> float:
    """Processor time of one start of Python; unlike wall time it hardly feels a busy machine."""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


@pytest.mark.skipif(not hasattr(os, "wait4"), reason="os.wait4 is not on this system")
@pytest.mark.parametrize("args", STARTS, ids=" ".join)
def test_starting_costs_little_more_than_importing_click(
    args: tuple[str, ...], tmp_path: Path
) -> None:
    base, ours = [], []
    for _ in range(5):  # in turns, so that a slow moment hits both
        base.append(cpu_seconds("import click", tmp_path))
        ours.append(cpu_seconds(run_cli(*args), tmp_path))
    assert min(ours) <= STARTS[args] * min(base), f"{min(ours):.3f} s against {min(base):.3f} s"
