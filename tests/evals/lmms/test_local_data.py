"""Local files in place of a hub data set. Needs no lmms-eval."""

import pytest

from evals.errors import InputError
from evals.lmms.local_data import override

CONFIG = {"task": "t", "test_split": "test", "fewshot_split": "dev", "dataset_kwargs": {"token": True, "num_proc": 2}}


def write(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("name", "builder"), [("a.parquet", "parquet"), ("a.jsonl", "json"), ("a.json", "json"), ("a.csv", "csv")]
)
def test_a_file_is_the_split_that_is_asked(tmp_path, name, builder):
    write(tmp_path, name)
    found = override(CONFIG, tmp_path / name, "t")
    assert found.keys["dataset_path"] == builder
    assert found.keys["dataset_kwargs"] == {"num_proc": 2, "data_files": {"test": [str(tmp_path / name)]}}
    assert found.files == (tmp_path / name,)


def test_a_folder_like_the_hubs_has_its_splits_by_name(tmp_path):
    write(tmp_path, "data/test-0-of-2.parquet", "data/test-1-of-2.parquet", "data/dev-0.parquet", "x.json")
    files = override(CONFIG, tmp_path, "t").keys["dataset_kwargs"]["data_files"]
    assert {split: len(paths) for split, paths in files.items()} == {"test": 2, "dev": 1}


def test_a_subset_is_its_folder(tmp_path):
    write(tmp_path, "A/test-0.parquet", "B/test-0.parquet")
    config = {**CONFIG, "dataset_name": "B"}
    assert override(config, tmp_path, "t").files == (tmp_path / "B/test-0.parquet",)


def test_a_folder_of_several_tasks_and_one_that_lacks_this_one(tmp_path):
    write(tmp_path, "t.parquet", "other/test.parquet")
    assert override(CONFIG, tmp_path, "t").files == (tmp_path / "t.parquet",)
    assert override(CONFIG, tmp_path, "other").files == (tmp_path / "other/test.parquet",)
    assert override(CONFIG, tmp_path, "third", is_shared=True) is None


def test_pictures_with_metadata_and_saved_data_sets(tmp_path):
    pictures = write(tmp_path / "p", "a.png", "metadata.jsonl")
    found = override(CONFIG, pictures, "t").keys
    assert found["dataset_path"] == "imagefolder"
    assert len(found["dataset_kwargs"]["data_files"]["test"]) == 2
    saved = write(tmp_path / "s", "dataset_dict.json", "test/data-0.arrow")
    assert override(CONFIG, saved, "t").keys["dataset_kwargs"]["load_from_disk"] is True


def test_bad_places_are_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        override(CONFIG, tmp_path / "none", "t")
    with pytest.raises(InputError, match="files begin with 'test'"):
        override(CONFIG, write(tmp_path / "d", "train.parquet", "more/dev.parquet"), "t")
    write(tmp_path, "a.txt")
    with pytest.raises(InputError, match="'.txt'"):
        override(CONFIG, tmp_path / "a.txt", "t")
