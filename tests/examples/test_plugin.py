"""The example plug-in: found by its entry points, run by the command line, quoted by the documentation."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLUGIN = ROOT / "examples" / "plugin"
RUN = (
    "run", "--task", "flat_colors", "--model", "painter:0.1", "--metric", "worst_group",
    "--no-track", "--output", "out", "--json", "-q",
)  # fmt: skip

pytestmark = pytest.mark.skipif(not PLUGIN.is_dir(), reason="examples are not part of a wheel")


def install_by_hand(folder: Path) -> None:
    """What pip leaves behind, without pip: modules and metadata on the path."""
    project = tomllib.loads((PLUGIN / "pyproject.toml").read_text())["project"]
    info = folder / "blip3o_eval_flat_colors-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
    groups = (
        f"[{group}]\n" + "".join(f"{name} = {target}\n" for name, target in points.items())
        for group, points in project["entry-points"].items()
    )
    (info / "entry_points.txt").write_text("\n".join(groups))
    shutil.copytree(PLUGIN / "flat_colors", folder / "flat_colors")


def check_run(stdout: str) -> None:
    body = json.loads(stdout)
    assert body["counts"] == {"samples": 8, "outputs": 16, "failed": 0, "scored": 16, "unscored": 0}
    assert body["judge"]["name"] == "pixels" and body["model"]["settings"] == {"noise": 0.1}
    groups = [body["metrics"][g]["value"] for g in ("warm", "cold", "neutral")]
    assert 0.85 < body["metrics"]["overall"]["value"] < 0.99
    assert body["metrics"]["worst_group"]["value"] == min(groups)


def test_the_example_runs_through_its_entry_points(tmp_path: Path) -> None:
    install_by_hand(tmp_path / "site")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); "
        "from evals.cli.main import main; main(sys.argv[1:])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *RUN], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    check_run(done.stdout)
    assert (tmp_path / "out" / "report.html").exists()


@pytest.mark.slow
def test_the_example_installed_by_pip_in_an_environment_of_its_own(tmp_path: Path) -> None:
    """`pip install ./examples/plugin` into a new environment that sees this one's packages."""
    setuptools = pytest.importorskip("setuptools")
    if int(setuptools.__version__.partition(".")[0]) < 77:
        pytest.skip("building the example needs setuptools 77 or newer")
    source = shutil.copytree(PLUGIN, tmp_path / "plugin")
    venv.create(tmp_path / "venv", with_pip=True, symlinks=True)
    python = tmp_path / "venv" / "bin" / "python"
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            capture_output=True, text=True, check=True,
        ).stdout.strip()
    )  # fmt: skip
    # A path file, as --system-site-packages of a nested environment would name the outermost one.
    places = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib"), str(ROOT)}
    (site / "host.pth").write_text("\n".join(sorted(places)))
    pip = [python, "-m", "pip"]
    subprocess.run([*pip, "uninstall", "-q", "-y", "setuptools"], check=True)  # an old one of venv's
    install = [*pip, "install", "--no-deps", "--no-build-isolation", "--no-index"]
    done = subprocess.run([*install, source], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    command = [python, "-m", "evals.cli.main"]
    listed = subprocess.run(
        [*command, "list", "models", "--json"], capture_output=True, text=True, cwd=tmp_path
    )
    rows = {row["name"]: row for row in map(json.loads, listed.stdout.splitlines())}
    assert rows["painter"]["origin"] == "blip3o-eval-flat-colors"
    assert rows["painter"]["error"] is None
    done = subprocess.run([*command, *RUN], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    check_run(done.stdout)
    shutil.rmtree(tmp_path / "venv")


@pytest.mark.parametrize(
    ("page", "files"),
    [
        ("adding-a-task.md", ["pyproject.toml", "flat_colors/task.py"]),
        ("adding-a-model.md", ["flat_colors/model.py"]),
        ("adding-a-judge.md", ["flat_colors/judge.py", "flat_colors/metric.py"]),
    ],
)
def test_the_documentation_quotes_the_example_as_it_is(page: str, files: list[str]) -> None:
    text = (ROOT / "docs" / page).read_text()
    blocks = re.findall(r"^```(?:python|toml)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert blocks == [(PLUGIN / file).read_text() for file in files]
