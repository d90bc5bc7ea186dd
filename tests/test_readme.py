"""What the README shows is true: its commands exist, its output is the real one, its files are there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")
COMMANDS = sorted(set(re.findall(r"blip3o-eval [a-z][^`&\n]*", TEXT)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_and_option_shown_exists(command: str) -> None:
    from evals.cli.main import main

    words = shlex.split(command)[1:]
    context = click.Context(main)
    sub = main.get_command(context, words[0])
    assert sub is not None, f"{words[0]} is not a command"
    known = {name for parameter in sub.params for name in parameter.opts}
    for word in words[1:]:
        if word.startswith("-"):
            assert word in known, f"{word} is not an option of {words[0]}"


def test_the_output_shown_for_score_is_the_real_one(monkeypatch: pytest.MonkeyPatch) -> None:
    from evals.cli.score import command

    match = re.search(
        r"```console\nblip3o-eval score (.*)\n```\n\n```text\n(.*?)\n```", TEXT, re.DOTALL
    )
    assert match is not None
    monkeypatch.chdir(ROOT)
    lines = CliRunner().invoke(command, shlex.split(match[1])).stdout.splitlines()
    shown_first, shown_last = (part.strip("\n").split("\n") for part in match[2].split("..."))
    assert lines[: len(shown_first)] == shown_first
    assert lines[-len(shown_last) :] == shown_last


def test_the_files_it_names_are_there() -> None:
    for name in re.findall(r"`([\w./-]+)`", TEXT):
        if "/" in name or name.isupper() or name.endswith((".txt", ".cff")):
            assert (ROOT / name).exists(), name
