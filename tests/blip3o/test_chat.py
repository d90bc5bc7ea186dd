"""Conversations on disk and the chat command: transcripts, resuming, pipes, mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from blip3o.chat import TRANSCRIPT, SavedDialogue, open_picture
from blip3o.cli import main
from blip3o.errors import DataError
from blip3o.pipeline import Blip3oPipeline


@pytest.fixture(scope="module")
def pipe() -> Blip3oPipeline:
    return Blip3oPipeline.from_pretrained("tiny")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(0).integers(0, 255, (50, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


@pytest.fixture
def no_loading(pipe, monkeypatch) -> None:
    """Commands get the pipeline of this module."""
    monkeypatch.setattr("blip3o.chat_cli.load_pipeline", lambda *a: pipe)
    monkeypatch.setattr("blip3o.cli.load_pipeline", lambda *a: pipe)


def chat(text: str, *arguments: str):
    return CliRunner().invoke(main, ["chat", "--model", "tiny", "--max-new-tokens", "3", *arguments], input=text)


def rows(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / TRANSCRIPT).read_text("utf-8").splitlines()]


@pytest.mark.usefixtures("no_loading")
def test_a_piped_conversation_keeps_transcript_and_pictures(tmp_path: Path, photo: Path) -> None:
    folder = tmp_path / "talk"
    text = f"/draw a dog\nwhat is it?\n\n/image {photo}\n/edit make it red\n//slash\n/quit\nnever read\n"
    result = chat(text, "--folder", str(folder))
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == str(folder / "001.png") and lines[2] == str(folder / "005.png")
    kept = rows(folder)
    assert kept[0]["model"] == "tiny" and [r["role"] for r in kept[1:]] == ["user", "assistant"] * 4
    assert kept[1] == {"role": "user", "text": "a dog", "wish": "draw"}
    assert kept[2]["seed"] == 42 and kept[6]["seed"] == 43
    assert kept[5]["images"][0]["path"] == str(photo) and kept[7]["text"] == "/slash"
    assert Image.open(folder / "005.png").size == (32, 32)


@pytest.mark.usefixtures("no_loading")
def test_a_conversation_in_two_sessions_is_the_one_of_one_session(tmp_path: Path, photo: Path) -> None:
    first, second = ["/draw a dog", "what?"], [f"/image {photo}", "/edit make it red", "why?"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert chat("\n".join([*first, *second]), "--folder", str(whole)).exit_code == 0
    assert chat("\n".join(first), "--folder", str(parts)).exit_code == 0
    result = chat("\n".join(second), "--folder", str(parts))
    assert "goes on after 4 turns" in result.stderr
    assert rows(whole)[1:] == rows(parts)[1:]
    for name in ("001.png", "005.png"):
        assert (whole / name).read_bytes() == (parts / name).read_bytes()


@pytest.mark.usefixtures("no_loading")
def test_messages_without_a_reply_are_counted_and_the_rest_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "talk"
    result = chat("/edit make it red\n/paint x\n/draw\n/image nowhere.png\n/draw a dog\n", "--folder", str(folder))
    assert result.exit_code == 1 and "4 messages got no reply" in result.stderr
    for words in (
        "no picture to edit in this conversation", "unknown command /paint; known: /draw",
        "caption is empty", "nowhere.png is not a readable picture",
    ):  # fmt: skip
        assert words in result.stderr
    assert result.stdout.splitlines() == [str(folder / "001.png")] and "Traceback" not in result.output
    assert len(rows(folder)) == 3


@pytest.mark.usefixtures("no_loading")
def test_replies_as_json_lines(tmp_path: Path) -> None:
    result = chat("/draw a dog\nwhat?\n", "--folder", str(tmp_path / "talk"), "--json")
    replies = [json.loads(line) for line in result.stdout.splitlines()]
    assert replies[0] == {"role": "assistant", "image": str(tmp_path / "talk" / "001.png")}
    assert set(replies[1]) == {"role", "text"}


@pytest.mark.usefixtures("no_loading")
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "001.png").unlink(), "001.png, which .* shows, is gone or was changed; put the file back"),
        (lambda f: (f / "001.png").write_bytes(b"x"), "is gone or was changed"),
        (lambda f: _edit(f, '"tiny"', '"nano"'), "is of model 'nano', not 'tiny'; give another folder or the same"),
        (lambda f: _edit(f, '"format": 1', '"format": 9'), "is of format 9"),
        (lambda f: _edit(f, '"role": "user"', '"role": user'), "line 2 is not JSON"),
        (lambda f: _edit(f, '"role": "user"', '"rule": "user"'), "line 2 is no turn"),
        (lambda f: _edit(f, '"role": "user"', '"role": "assistant"'), "turn 0 must be the user's"),
        (lambda f: (f / TRANSCRIPT).write_text("[]\n"), "line 1 must be an object"),
    ],
)
def test_damaged_conversations_are_named(tmp_path: Path, damage, message: str) -> None:
    folder = tmp_path / "talk"
    assert chat("/draw a dog\n", "--folder", str(folder)).exit_code == 0
    damage(folder)
    result = chat("what?\n", "--folder", str(folder))
    assert result.exit_code == 1 and "Traceback" not in result.output
    import re

    assert re.search(message, result.stderr), result.stderr


def _edit(folder: Path, old: str, new: str) -> None:
    path = folder / TRANSCRIPT
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), "utf-8")


def test_a_turn_that_broke_off_is_dropped(pipe, tmp_path: Path) -> None:
    saved = SavedDialogue(pipe.chat(), tmp_path, "tiny")
    with saved.saving():
        saved.dialogue.draw("a dog")
    whole = saved.path.read_text("utf-8")
    for torn in (b'{"role": "user", "te', b'{"text": "d\xc3', b'{"role": "user", "text": "and"}\n'):
        saved.path.write_bytes(whole.encode() + torn)
        again = SavedDialogue(pipe.chat(), tmp_path, "tiny")
        assert len(again.dialogue.turns) == 2 and saved.path.read_text("utf-8") == whole


def test_a_turn_that_cannot_be_written_is_not_kept(pipe, tmp_path: Path, monkeypatch) -> None:
    saved = SavedDialogue(pipe.chat(), tmp_path, "tiny")
    whole = saved.path.read_text("utf-8")

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(DataError, match="No space left.*is not kept, make room"):
        patch.setattr(Image.Image, "save", full)
        with saved.saving():
            saved.dialogue.draw("a dog")
    assert saved.dialogue.turns == [] and saved.path.read_text("utf-8") == whole
    with saved.saving():
        saved.dialogue.draw("a dog")
    assert len(SavedDialogue(pipe.chat(), tmp_path, "tiny").dialogue.turns) == 2


@pytest.mark.usefixtures("no_loading")
def test_a_folder_serves_one_chat_at_a_time(tmp_path: Path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"):
        result = chat("what?\n", "--folder", str(tmp_path))
    assert result.exit_code == 1 and "is in use by another chat; close it" in result.stderr


@pytest.mark.usefixtures("no_loading")
def test_input_that_is_no_text(tmp_path: Path) -> None:
    result = CliRunner().invoke(main, ["chat", "--folder", str(tmp_path / "t")], input=b"ok\n\xff\xfe\n")
    assert result.exit_code == 1 and "line 2 of the input is not UTF-8" in result.stderr


@pytest.mark.usefixtures("no_loading")
def test_edit_ask_and_reconstruct_write_what_they_say(tmp_path: Path, photo: Path) -> None:
    runner, out = CliRunner(), tmp_path / "red.png"
    result = runner.invoke(main, ["edit", str(photo), "make it red", "-o", str(out), "--num-images", "2"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [str(tmp_path / "red-0.png"), str(tmp_path / "red-1.png")]
    result = runner.invoke(main, ["ask", "-", "what?", "--max-new-tokens", "2"])
    assert result.exit_code == 0, result.output
    result = runner.invoke(main, ["reconstruct", str(photo), "-o", str(out), "--through", "backbone"])
    assert result.exit_code == 0 and out.exists()
    result = runner.invoke(main, ["reconstruct", str(photo), "-o", str(out)])
    assert result.exit_code == 1 and "target encoder" in result.output
    result = runner.invoke(main, ["generate", "a dog", "-o", str(tmp_path / "no" / "dog.png")])
    assert result.exit_code == 1 and "does not exist; make it" in result.output


def test_pictures_are_read_whole(tmp_path: Path, photo: Path) -> None:
    data = photo.read_bytes()
    cut = tmp_path / "cut.png"
    cut.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match="cut.png is damaged or cut short"):
        open_picture(cut)
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(DataError, match="text.png is not a readable picture; give a PNG, JPEG"):
        open_picture(tmp_path / "text.png")
    with pytest.raises(DataError, match="is not a readable picture"):
        open_picture(tmp_path)


def test_commands_let_idle_threads_sleep(monkeypatch) -> None:
    import os

    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    CliRunner().invoke(main, ["ask", "nowhere.png", "what?"])
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    CliRunner().invoke(main, ["ask", "nowhere.png", "what?"])
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
