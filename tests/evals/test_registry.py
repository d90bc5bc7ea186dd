from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evals.errors import UnknownNameError
from evals.registry import Registry, RegistryError


def test_entries_are_imported_on_first_use_only() -> None:
    registry: Registry = Registry("task")
    registry.register("tree", "xml.dom.minidom:parseString", origin="built-in")
    registry.register("nowhere", "no_such_package.module:thing", origin="built-in")
    assert registry.names() == ["tree", "nowhere"]
    assert callable(registry.get("tree"))
    with pytest.raises(RegistryError, match=r"task 'nowhere' \(built-in\) cannot be imported"):
        registry.get("nowhere")


def test_a_clash_names_both_origins() -> None:
    registry: Registry = Registry("judge")
    registry.register("stickers", object(), origin="built-in")
    with pytest.raises(
        RegistryError, match="'stickers' of other-package clashes with the one of built-in"
    ):
        registry.register("stickers", object(), origin="other-package")
    assert registry.origin("stickers") == "built-in"


def test_an_unknown_name_gets_a_suggestion() -> None:
    registry: Registry = Registry("task")
    registry.register("geneval", object())
    with pytest.raises(UnknownNameError) as caught:
        registry.get("genval")
    assert str(caught.value) == "Unknown task 'genval'. Did you mean: geneval?"
    with pytest.raises(UnknownNameError, match="Known: geneval"):
        registry.get("xyz")


def test_a_frozen_registry_takes_no_entries() -> None:
    registry: Registry = Registry("task")
    registry.freeze()
    with pytest.raises(RegistryError, match="frozen"):
        registry.register("geneval", object())


def test_a_target_has_module_and_attribute() -> None:
    with pytest.raises(RegistryError, match="not 'package.module:attribute'"):
        Registry("task").register("x", "package.module")


def install_plugin(folder: Path, name: str, entry_points: str, modules: dict[str, str]) -> None:
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(entry_points)
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)


def list_tasks(folder: Path) -> dict[str, dict]:
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); from evals.cli.main import main; "
        "main(['list', 'tasks', '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_a_broken_plugin_is_listed_with_its_error_and_the_rest_load(tmp_path: Path) -> None:
    install_plugin(
        tmp_path,
        "good-plugin",
        "[blip3o_eval.tasks]\ngood = good_tasks:Good\n",
        {"good_tasks": "class Good: ..."},
    )
    install_plugin(
        tmp_path,
        "bad-plugin",
        "[blip3o_eval.tasks]\nbad = bad_tasks:Bad\ngone = bad_place:Gone\n",
        {"bad_tasks": "raise RuntimeError('half installed')"},
    )
    rows = list_tasks(tmp_path)
    assert rows["geneval"]["error"] is None and rows["geneval"]["origin"] == "built-in"
    assert rows["good"]["error"] is None and rows["good"]["origin"] == "good-plugin"
    assert "half installed" in rows["bad"]["error"]
    assert "bad_place" in rows["gone"]["error"]


def test_a_plugin_that_takes_a_built_in_name_is_listed_as_clash(tmp_path: Path) -> None:
    install_plugin(
        tmp_path,
        "rival",
        "[blip3o_eval.tasks]\ngeneval = rival_tasks:Other\n",
        {"rival_tasks": "class Other: ..."},
    )
    rows = list_tasks(tmp_path)
    assert rows["geneval"]["origin"] == "built-in" and rows["geneval"]["error"] is None
    assert "clashes with the one of built-in" in rows["geneval (rival)"]["error"]
