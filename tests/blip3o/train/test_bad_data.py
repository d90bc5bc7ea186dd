"""What users hand to `blip3o train`, wrong: each ends in one line that names it, and nothing that was saved is lost."""

from __future__ import annotations

import io
import json
import tarfile

import pytest
import yaml
from click.testing import CliRunner
from PIL import Image

from blip3o.cli import main
from blip3o.train import checkpoint


def png():
    file = io.BytesIO()
    Image.new("RGB", (40, 36), "red").save(file, "PNG")
    return file.getvalue()


def write(path, records):
    with tarfile.open(path, "w") as archive:
        for number, (picture, text) in enumerate(records):
            for name, content in ((f"{number}.png", picture), (f"{number}.txt", text)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def told(tmp_path, settings, *more):
    """The command's one line; it must have failed, without a traceback."""
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(settings))
    command = ["train", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "run"), *more]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 1 and isinstance(done.exception, SystemExit), done.output
    (line,) = [line for line in done.output.splitlines() if line.startswith("Error: ")]
    return line


GOOD = [(png(), b"a dog")] * 4
BROKEN = {
    "captions that are no UTF-8": ([(png(), b"\xff\xfe\x00")] * 8, "'txt' is not UTF-8 text"),
    "captions that are empty": ([(png(), b"  \n")] * 8, "'txt' is empty"),
    "pictures that do not decode": ([(b"\x89PNG cut", b"a dog")] * 8, "'png' does not decode"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_bad_records_end_the_run_once_there_are_too_many(folder, values, tmp_path, case):
    """Not before 200 records were read: one bad among the first ten says little."""
    records, message = BROKEN[case]
    write(tmp_path / "0.tar", GOOD + records)
    data = [{"name": "mine", "layout": "webdataset", "paths": [str(tmp_path / "0.tar")]}]
    loop = {"steps": 99, "lr": 1e-3, "warmup_steps": 0, "bf16": False, "log_every": 50}
    line = told(tmp_path, values(folder, data=data, loop=loop))
    assert message in line and "data set 'mine'" in line and "more than 1.00%" in line


def test_shards_that_are_missing_empty_or_unsafe_are_named(folder, values, tmp_path):
    def line(*paths):
        data = [{"name": "mine", "layout": "webdataset", "paths": [str(p) for p in paths]}]
        return told(tmp_path, values(folder, data=data))

    message = "data set 'mine': 2 of 3 files do not exist, such as"
    assert f"{message} {tmp_path}/7.tar" in line(folder / "0.tar", tmp_path / "{7..8}.tar")
    assert f"no file matches {tmp_path}/none-*.tar" in line(tmp_path / "none-*.tar")
    write(tmp_path / "empty.tar", [])
    assert f"shard {tmp_path}/empty.tar holds no records" in line(tmp_path / "empty.tar")
    with tarfile.open(tmp_path / "link.tar", "w") as archive:
        info = tarfile.TarInfo("0.png")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(info)
    assert "member '0.png' is a link or device" in line(tmp_path / "link.tar")
    (tmp_path / "cut.tar").write_bytes((folder / "0.tar").read_bytes()[:700])
    assert "is damaged or cut short" in line(tmp_path / "cut.tar")


def test_a_run_is_not_resumed_with_other_settings(folder, values, tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values(folder)))
    command = ["train", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "run")]
    assert CliRunner().invoke(main, command, catch_exceptions=False).exit_code == 0
    before = (tmp_path / "run/train/state.safetensors").read_bytes()
    line = told(tmp_path, values(folder), "--set", "batch_size=2", "--set", "loop.lr=0.01")
    assert "made with other settings (lr, recipe.batch_size): use the same ones, or another folder" in line
    assert (tmp_path / "run/train/state.safetensors").read_bytes() == before


def test_a_full_disk_ends_the_run_in_one_line_and_a_later_start_goes_on(folder, values, tmp_path, monkeypatch):
    saves, original = [], checkpoint.save_file

    def full(*args, **kwargs):
        saves.append(1)
        if len(saves) == 3:
            raise OSError(28, "No space left on device")
        return original(*args, **kwargs)

    loop = {"steps": 4, "lr": 1e-3, "warmup_steps": 0, "bf16": False, "log_every": 1, "save_every_s": 0.0}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full)
        line = told(tmp_path, values(folder, loop=loop))
    assert "No space left on device" in line and "what was saved before is whole" in line
    command = ["train", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "run")]
    done = CliRunner().invoke(main, command, catch_exceptions=False)
    assert done.exit_code == 0 and (tmp_path / "run/model/model.safetensors").is_file()
    steps = [json.loads(line) for line in (tmp_path / "run/train/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in steps if "loss" in row] == [1, 2, 3, 4]


def test_what_a_recipe_names_and_is_not_there_is_said_before_weights_load(folder, values, tmp_path, monkeypatch):
    def data(**changes):
        return {"data": [{"name": "mine", "layout": "webdataset", "paths": [str(folder / "*.tar")], **changes}]}

    cases = {
        "the random model 'tiny' has no files": {"model": "tiny"},
        f"{folder}/model is no target encoder: kind None": {"target_encoder": str(folder / "model")},
        f"1 of 1 files are folders, such as {tmp_path}": data(paths=[str(tmp_path)]),
        "data set 'mine': unknown level 'easyy'": data(layout="stickers", paths=["easyy:10"]),
        "data set 'mine': stickers: kind 'reconstruction'": data(
            layout="stickers", paths=["easy:10"], kind="reconstruction"
        ),
        "data set 'mine' needs the package datasets": data(layout="huggingface", paths=["some/where"]),
    }
    monkeypatch.setattr("blip3o.train.data_spec.find_spec", lambda name: None)
    for message, changes in cases.items():
        assert message in told(tmp_path, {**values(folder), **changes}), message


def test_a_store_of_curves_that_is_none_costs_the_curves_only(folder, values, tmp_path, caplog):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values(folder)))
    command = ["train", str(tmp_path / "mine.yaml"), "--output", str(tmp_path / "run"), "--set", "loop.steps=1"]
    done = CliRunner().invoke(main, [*command, "--tracking-uri", "nonsense://x"])
    assert done.exit_code == 0, done.output
    assert "no curves: the MLflow store nonsense://x cannot be used" in caplog.text
