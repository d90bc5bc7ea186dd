"""Names of tasks from YAML files, without lmms-eval."""

import sys

import pytest

from evals.errors import UnknownNameError
from evals.lmms import catalog, package

FILES = {
    "one/one.yaml": "dataset_path: owner/One\ntask: one\noutput_type: multiple_choice # a comment\n",
    "one/quoted.yaml": '"task": "two"\n"tag":\n- "all"\n"include": "_shared"\n',
    "one/_shared": "dataset_path: owner/Two\ntask: not_me\n",
    "one/bom.yaml": "\ufefftask: three\ntag: [all, some]\n",
    "group/group.yaml": "group: many\ntask:\n  # left out: four\n\n  - one\n  - task: two\n    alias: x\n",
    "group/class.yaml": "task: five\nclass: !function task.Five\n",
    "group/notes.txt": "task: six\n",
}


@pytest.fixture
def root(tmp_path):
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return str(tmp_path)


def test_names_kinds_and_included_keys(root):
    found = catalog.entries(root)
    assert {name: entry.kind for name, entry in found.items()} == {
        "one": "task", "two": "task", "three": "task", "many": "group", "five": "class", "all": "tag", "some": "tag",
    }  # fmt: skip
    assert (found["one"].output_type, found["one"].dataset) == ("multiple_choice", "owner/One")
    assert found["two"].dataset == "owner/Two"
    assert sorted(found["all"].members) == ["three", "two"]
    assert found["many"].folder == "group"


def test_the_index_has_the_form_of_its_task_manager(root):
    index = catalog.index(root)
    assert index["five"]["type"] == "python_task"
    assert index["many"]["task"] == -1
    assert index["all"] == {"type": "tag", "yaml_path": -1, "task": catalog.entries(root)["all"].members}


def test_unknown_names_get_a_suggestion(root):
    with pytest.raises(UnknownNameError, match="'thre'. Did you mean: three"):
        catalog.find("thre", root)


@pytest.mark.skipif(package.version() is None, reason="needs lmms-eval: pip install 'blip3o-eval[understanding]'")
def test_all_names_of_the_installed_release_are_found():
    """Its own manager parses every file; so does this test, once."""
    manager = package.load("lmms_eval.tasks").TaskManager("ERROR")
    found = catalog.index()
    assert set(found) == set(manager.task_index)
    for name, entry in manager.task_index.items():
        assert found[name]["type"] == entry["type"], name
        assert found[name]["yaml_path"] == entry["yaml_path"], name


def test_listing_tasks_imports_nothing_of_it():
    import subprocess

    code = "import sys; from evals import discovery, registry; discovery.discover(); registry.tasks.names()"
    code += "; import evals.lmms.catalog, tasks.understanding.lmms, evals.models.lmms"
    code += "; print([m for m in ('lmms_eval', 'torch', 'datasets', 'numpy') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr
