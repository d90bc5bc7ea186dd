"""The small command that shows the world."""

from __future__ import annotations

import pytest
from PIL import Image

from blip3o.stickers.__main__ import main


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        (["scenes", "--number", "5", "--columns", "4", "--scale", "1"], (4 * 68, 2 * 98)),
        (
            ["edits", "--number", "2", "--columns", "4", "--scale", "1", "--level", "full"],
            (4 * 68, 98),
        ),
        (["sprites", "--style", "twemoji", "--size", "16"], (110 + 20 * 11, 20 * 80 + 14)),
    ],
)
def test_sheets_are_written(tmp_path, arguments, size):
    out = tmp_path / "sheet.png"
    assert main([*arguments, "--out", str(out)]) == 0
    picture = Image.open(out)
    assert picture.size == size and len(picture.convert("RGB").getcolors(1 << 20)) > 50


def test_unseen_style_is_never_shown_without_its_credit(tmp_path):
    """The credit is a line of its own below the pictures: dark text on white, only for that style."""
    heights = {}
    for split in ("val", "unseen_style"):
        out = tmp_path / f"{split}.png"
        main(["scenes", "--split", split, "--number", "8", "--out", str(out)])
        heights[split] = Image.open(out).height
        last = Image.open(out).convert("L").crop((0, heights[split] - 14, 400, heights[split]))
    assert heights["unseen_style"] == heights["val"] + 14
    darkest, lightest = last.getextrema()
    assert darkest < 100 and lightest == 255


def test_failure_is_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["scenes", "--size", "4", "--out", str(tmp_path / "x.png")])
    assert stop.value.code == 1
    assert "size_px 4 is below 16" in capsys.readouterr().err
