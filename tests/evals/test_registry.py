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


GOOD_TASK = """
class Good:
    'A good task.'
    name = "good"; version = "1"; kind = "generation"; groups = (); num_images = 1; judges = {}; card = {}
    def samples(self): return []
    def digest(self): return ""
    def score(self, items, judge): return []
    def metrics(self): return []
"""


def list_tasks(folder: Path, what: str = "tasks") -> dict[str, dict]:
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); from evals.cli.main import main; "
        f"main(['list', {what!r}, '--json'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return {row["name"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_a_broken_plugin_is_listed_with_its_error_and_the_rest_load(tmp_path: Path) -> None:
    install_plugin(
        tmp_path,
        "good-plugin",
        "[blip3o_eval.tasks]\ngood = good_tasks:Good\n",
        {"good_tasks": GOOD_TASK},
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
    assert rows["good"]["summary"] == "A good task."
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


def test_every_way_of_being_broken_is_named_and_the_rest_load(tmp_path: Path) -> None:
    modules = {
        "good_tasks": GOOD_TASK,
        "leaving": "import sys; print('bye'); sys.exit(3)",
        "wrong": "number = 5\nclass Empty: ...\nclass Needy:\n    def __init__(self, path): ...\n",
        "raising": "class Raising:\n    def __init__(self): raise OSError('no disk')\n",
        "newer": "BLIP3O_EVAL_API = 99\n" + GOOD_TASK,
        "odd": GOOD_TASK.replace("generation", "dancing"),
    }
    points = {
        "good": "good_tasks:Good", "leaving": "leaving:Task", "number": "wrong:number",
        "empty": "wrong:Empty", "needy": "wrong:Needy", "missing": "wrong:Absent",
        "raising": "raising:Raising", "newer": "newer:Good", "odd": "odd:Good", "junk": "no colon",
    }  # fmt: skip
    table = "\n".join(f"{name} = {target}" for name, target in points.items())
    install_plugin(tmp_path, "zoo", f"[blip3o_eval.tasks]\n{table}\n", modules)
    rows = list_tasks(tmp_path)
    assert rows["good"]["error"] is None and rows["geneval"]["error"] is None
    expected = {
        "leaving": "SystemExit: 3",
        "number": "is an object of type int, not a class or function",
        "empty": "made an object of type Empty that is no task: it has no name, version, kind",
        "needy": "cannot be called with ()",
        "missing": "AttributeError: module 'wrong' has no attribute 'Absent'",
        "raising": "does not start: OSError: no disk",
        "newer": "written for version 99 of evals.api, this is version 1",
        "odd": "is of kind 'dancing': must be 'generation' or 'understanding'",
        "junk (zoo)": "is not 'package.module:attribute'",
    }
    for name, message in expected.items():
        assert message in rows[name]["error"], (name, rows[name]["error"])


def test_factories_of_models_judges_and_metrics_are_checked_by_their_arguments(
    tmp_path: Path,
) -> None:
    modules = {"things": "def two(spec, options): ...\ndef one(spec): ...\n"}
    table = "two = things:two\none = things:one\n"
    points = "".join(f"[blip3o_eval.{k}]\n{table}" for k in ("models", "judges", "metrics"))
    install_plugin(tmp_path, "things", points, modules)
    for what, good, bad in (("models", "two", "one"), ("judges", "two", "one"), ("metrics", "one", "two")):
        rows = list_tasks(tmp_path, what)
        assert rows[good]["error"] is None
        assert "cannot be called with (spec" in rows[bad]["error"]


def test_what_a_factory_makes_is_checked_before_anything_is_generated(tmp_path: Path) -> None:
    modules = {
        "things": "def nothing(spec, options): return None\n"
        "def broken(spec, options): return 1 / 0\n"
    }
    points = "[blip3o_eval.models]\nnothing = things:nothing\nbroken = things:broken\n"
    install_plugin(tmp_path, "things", points, modules)
    for model, message in (
        ("nothing", "made an object of type NoneType that is no model: it has no identity"),
        ("broken", "model 'broken' (things) does not start: ZeroDivisionError: division by zero"),
    ):
        code = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from evals.cli.main import main; "
            f"main(['run', '--task', 'geneval', '--model', {model!r}])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
        )
        assert done.returncode == 1 and "Traceback" not in done.stderr
        assert message in done.stderr
        assert not (tmp_path / "runs").exists()


def test_a_damaged_list_of_entry_points_hides_no_other(tmp_path: Path) -> None:
    install_plugin(
        tmp_path, "good-plugin", "[blip3o_eval.tasks]\ngood = good_tasks:Good\n",
        {"good_tasks": GOOD_TASK},
    )  # fmt: skip
    install_plugin(tmp_path, "torn", "", {})
    (tmp_path / "torn-1.0.dist-info" / "entry_points.txt").write_bytes(b"\xf7\x00[blip3o")
    install_plugin(tmp_path, "odd", "[blip3o_eval.tasks]\njunk\n= x\nempty =\n", {})
    (tmp_path / "nameless-1.0.dist-info").mkdir()
    (tmp_path / "nameless-1.0.dist-info" / "entry_points.txt").write_text(
        "[blip3o_eval.tasks]\nnobody = nowhere:Task\n"
    )
    rows = list_tasks(tmp_path)
    assert rows["good"]["error"] is None and rows["geneval"]["error"] is None
    assert "cannot be read: UnicodeDecodeError" in rows["? (torn)"]["error"]
