"""Folders of pictures that others made: layouts, missing and foreign pictures, files that are no pictures."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import pytest
from PIL import Image

from evals.api import Sample
from evals.errors import InputError
from evals.phases.readymade import EncodedPicture
from evals.pictures.files import MAX_PIXELS, PictureError, read_picture
from evals.pictures.folders import open_folder
from evals.pictures.matching import PicturePlace, match

OFFICIAL = [
    Sample(
        f"{n:05d}", n, "colors", f"a photo of {n}", {"tag": "colors", "prompt": f"a photo of {n}"}
    )
    for n in range(6)
]


def save(path: Path, color=(200, 30, 30), size=(8, 8), mode="RGB", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """GenEval's layout: six prompts with two pictures, grids beside them."""
    root = tmp_path / "pictures of others ü"
    for sample in OFFICIAL:
        place = root / sample.id
        for index in range(2):
            save(place / "samples" / f"{index:04d}.png", (sample.number, index, 0))
        save(place / "grid.png")
        (place / "metadata.jsonl").write_text(json.dumps(sample.metadata))
    return root


def find(root: Path, samples=OFFICIAL, per_sample=2, layouts=("numbered",), **options):
    return match(open_folder(root), OFFICIAL, samples, per_sample, "geneval", layouts, **options)


# --- GenEval's layout --------------------------------------------------------------------------------------------


def test_every_picture_is_found_whatever_the_number_of_digits(folder: Path) -> None:
    (folder / "00003").rename(folder / "3")
    (folder / "3" / "samples" / "0001.png").rename(folder / "3" / "samples" / "00001.png")
    (folder / "3" / "samples" / "00000.png.bak").write_bytes(b"")
    (folder / "results.jsonl").write_text("")
    found = find(folder)
    assert len(found.places) == 12 and not found.problems and not found.warnings
    assert found.places["00003", 1].path.name == "00001.png"


def test_missing_pictures_are_counted_and_named(folder: Path) -> None:
    (folder / "00001" / "samples" / "0001.png").unlink()
    shutil.rmtree(folder / "00004" / "samples")
    shutil.rmtree(folder / "00005")
    found = find(folder)
    assert len(found.problems) == 5
    assert found.problems["00005", 0] == "00005/samples/00000.png: no such picture"
    assert found.warnings == (
        "incomplete: 5 of 12 pictures are missing: 00001/samples/00001.png, 00004/samples/00000.png, "
        "00004/samples/00001.png and 2 more",
    )


def test_the_same_too_few_everywhere_is_no_riddle(folder: Path) -> None:
    found = find(folder, per_sample=4)
    assert found.warnings[0].endswith(
        "every prompt has 2: --num-images 2 scores these, marked as a deviation"
    )


def test_more_pictures_than_asked_for_are_said(folder: Path) -> None:
    found = find(folder, per_sample=1)
    assert len(found.places) == 6
    assert found.warnings == (
        "6 of 6 prompts have more than 1 pictures, up to 2; the first 1 of each are scored "
        "(--num-images 2 scores all)",
    )


def test_numbers_from_one_are_taken_in_order(folder: Path) -> None:
    samples = folder / "00002" / "samples"
    (samples / "0001.png").rename(samples / "0002.png")
    (samples / "0000.png").rename(samples / "0001.png")
    found = find(folder)
    assert not found.problems
    assert [found.places["00002", i].path.name for i in (0, 1)] == ["0001.png", "0002.png"]


def test_only_the_prompts_of_the_run_have_to_be_there(folder: Path) -> None:
    for name in ("00000", "00001", "00002"):
        shutil.rmtree(folder / name)
    found = find(folder, samples=OFFICIAL[3:])
    assert len(found.places) == 6 and not found.warnings


def test_metadata_of_another_prompt_is_named_and_refused(folder: Path) -> None:
    other = {**OFFICIAL[2].metadata, "tag": "counting"}
    (folder / "00002" / "metadata.jsonl").write_text(json.dumps(other))
    (folder / "00004" / "metadata.jsonl").write_text("{")
    with pytest.raises(InputError) as caught:
        find(folder)
    text = str(caught.value)
    assert (
        f"{folder}/00002/metadata.jsonl disagrees with the official prompt of that number" in text
    )
    assert 'tag "counting", official "colors"' in text and "(and 1 more folders: 00004)" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing, so nobody knows which prompt its pictures answer"),
        (b"", "is not one JSON object"),
        (b"[1]", "is not one JSON object"),
        (b'{"tag": NaN}', "NaN is not allowed"),
        (b'{"tag": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"tag": "colors", "prompt": 3}', "prompt 3, official"),
        (b'{"tag": "colors", "prompt": "a photo of 1", "include": [1]}', "include [1], official null"),
    ],
)  # fmt: skip
def test_bad_metadata_is_refused(folder: Path, content: bytes | None, said: str) -> None:
    path = folder / "00001" / "metadata.jsonl"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match="00001/metadata.jsonl") as caught:
        find(folder)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_rewritten_prompts_need_a_word(folder: Path) -> None:
    changed = {**OFFICIAL[1].metadata, "prompt": "A breathtaking photo of 1", "extra": 7}
    (folder / "00001" / "metadata.jsonl").write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"1 prompts disagree in their text .*00001.*--rewritten"):
        find(folder)
    found = find(folder, allow_rewritten=True)
    assert found.deviations == (
        "the prompts of 1 of 6 folders were rewritten (--rewritten-prompts)",
    )


def test_folders_of_no_prompt_are_refused(folder: Path) -> None:
    shutil.copytree(folder / "00000", folder / "00017")
    with pytest.raises(InputError, match=r"00017 is no prompt of task 'geneval', which has 6"):
        find(folder)


def test_two_spellings_of_one_number_are_refused(folder: Path) -> None:
    save(folder / "00000" / "samples" / "00000.png")
    with pytest.raises(InputError, match="0000.png and 00000.png stand for the same number"):
        find(folder)
    shutil.copytree(folder / "00001", folder / "1")
    with pytest.raises(InputError, match="00001 and 1 stand for the same number"):
        open_folder(folder)


def test_mixed_layouts_are_refused(folder: Path) -> None:
    save(folder / "00003" / "0000.png")
    with pytest.raises(InputError, match=r"mixes two layouts: 00000/samples/ and 00003/0000.png"):
        open_folder(folder)
    save(folder / "a prompt.png")
    with pytest.raises(InputError, match=r"mixes two layouts: 00000/ \(GenEval's.* a prompt.png"):
        open_folder(folder)


def test_what_is_no_folder_of_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        open_folder(tmp_path / "none")
    with pytest.raises(InputError, match="holds no pictures in a known layout"):
        open_folder(tmp_path)
    with pytest.raises(InputError, match="Not a directory"):
        open_folder(save(tmp_path / "one.png"))
    save(tmp_path / "bare" / "00000" / "0000.png")
    with pytest.raises(InputError, match=r"has no samples folders: 00000/0000.png"):
        open_folder(tmp_path / "bare")
    (tmp_path / "run" / "images").mkdir(parents=True)
    (tmp_path / "run" / "manifest.json").write_text("{}")
    with pytest.raises(InputError, match="is a run folder: `blip3o-eval rescore"):
        open_folder(tmp_path / "run")


def test_a_folder_without_any_picture_of_the_run_is_refused(folder: Path) -> None:
    for path in folder.glob("*/samples/*.png"):
        path.unlink()
    with pytest.raises(InputError, match=r"holds none of the 12 pictures of this run; the first"):
        find(folder)


# --- DPG-Bench's layout ------------------------------------------------------------------------------------------

ITEMS = [Sample(name, n, "plain", "p", {}) for n, name in enumerate(("0", "vrd12", "whoops3"))]


def grids(root: Path, names=("0", "vrd12", "whoops3"), size=(16, 16)) -> Path:
    for name in names:
        image = Image.new("RGB", size)
        for n, color in enumerate([(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]):
            image.paste(color, (n % 2 * size[0] // 2, n // 2 * size[1] // 2, size[0], size[1]))
        root.mkdir(exist_ok=True)
        image.save(root / f"{name}.png")
    return root


def find_grids(root: Path, per_sample: int = 4):
    return match(open_folder(root), ITEMS, ITEMS, per_sample, "dpg", ("numbered", "grids"))


def test_a_grid_is_cut_in_upstreams_order(tmp_path: Path) -> None:
    found = find_grids(grids(tmp_path / "g"))
    assert len(found.places) == 12
    place = found.places["vrd12", 2]
    assert place == PicturePlace(tmp_path / "g" / "vrd12.png", 2)
    image = read_picture(place.path, "x").convert("RGB")
    cut = [found.places["vrd12", n].cut(image).getpixel((3, 3)) for n in range(4)]
    assert cut == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (9, 9, 9)]
    assert find_grids(tmp_path / "g", 1).places["0", 0].quadrant is None


def test_grids_of_another_size_are_named(tmp_path: Path) -> None:
    root = grids(tmp_path / "g")
    save(root / "vrd12.png", size=(16, 32))
    save(root / "whoops3.png", size=(15, 16))
    save(root / "0.png", size=(16, 16))
    problems = find_grids(root).problems
    assert (
        problems["whoops3", 0] == "whoops3.png: 15 x 16 pixels are no 2 x 2 grid of equal pictures"
    )
    shutil.rmtree(root)
    root = grids(tmp_path / "g")
    save(root / "vrd12.png", size=(8, 8))
    found = find_grids(root)
    assert (
        found.problems["vrd12", 3] == "vrd12.png: 8 x 8 pixels, where the other grids have 16 x 16"
    )
    assert found.warnings[0].startswith("1 files cannot be cut: vrd12.png")


def test_missing_and_foreign_grids_are_named(tmp_path: Path) -> None:
    root = grids(tmp_path / "g", ("0", "vrd12"))
    found = find_grids(root)
    assert found.warnings == ("incomplete: 1 of 3 files are missing: whoops3.png",)
    assert set(found.problems) == {("whoops3", n) for n in range(4)}
    save(root / "stranger.png")
    with pytest.raises(InputError, match="stranger.png is named after no item of task 'dpg'"):
        find_grids(root)
    with pytest.raises(InputError, match="5 pictures per prompt do not fit"):
        find_grids(grids(tmp_path / "h"), 5)


def test_a_task_says_which_layouts_it_is_scored_from(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"holds <item id>.png; task 'geneval' is scored from GenEv"
    ):
        match(open_folder(grids(tmp_path / "g")), ITEMS, ITEMS, 4, "geneval", ("numbered",))


# --- files -------------------------------------------------------------------------------------------------------


def test_a_plain_picture_keeps_its_bytes(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png")
    found = read_picture(path, "a.png")
    assert isinstance(found, EncodedPicture) and found.png_bytes == path.read_bytes()
    assert found.convert("RGB").getpixel((0, 0)) == (200, 30, 30)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGBA", (1, 2, 3, 255), (1, 2, 3)),
        ("LA", (9, 255), (9, 9, 9)),
    ],
)
def test_modes_that_become_rgb_without_loss_are_read(tmp_path, mode, color, expected) -> None:
    path = save(tmp_path / "a.png", color, mode=mode)
    assert read_picture(path, "a.png").convert("RGB").getpixel((4, 4)) == expected


@pytest.mark.parametrize(
    ("mode", "color", "said"),
    [
        ("RGBA", (1, 2, 3, 254), "has transparent pixels"),
        ("LA", (9, 0), "has transparent pixels"),
        ("I;16", 5, "has mode I;16; scored are 8-bit pictures"),
    ],
)
def test_modes_that_need_a_decision_are_refused_by_name(tmp_path, mode, color, said) -> None:
    path = save(tmp_path / "a.png", color, mode=mode)
    with pytest.raises(PictureError, match=f"^a.png: {said}"):
        read_picture(path, "a.png")


def test_other_colour_spaces_are_refused_and_jpegs_turned(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", (0, 0, 0, 0), mode="CMYK")
    with pytest.raises(PictureError, match="has mode CMYK"):
        read_picture(path, "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    turned = read_picture(save(tmp_path / "b.jpg", size=(8, 24), exif=exif), "b.jpg")
    assert turned.size == (24, 8)
    png = read_picture(save(tmp_path / "c.png", size=(8, 24), exif=exif), "c.png")
    assert not isinstance(png, EncodedPicture) and png.size == (24, 8)


def test_files_that_are_no_pictures_are_refused_by_name(tmp_path: Path) -> None:
    whole = save(tmp_path / "whole.png", size=(64, 64)).read_bytes()
    cases = {
        "empty.png": (b"", "is empty"),
        "text.png": (b"hello", "is no picture"),
        "cut.png": (whole[: len(whole) // 2], "damaged or cut short"),
        "flipped.png": (whole[:60] + bytes([whole[60] ^ 255]) + whole[61:], "damaged or cut short"),
        "script.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture"),
    }
    for name, (content, said) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(PictureError, match=f"^{name}: {said}"):
            read_picture(tmp_path / name, name)
    with pytest.raises(PictureError, match="cannot be read"):
        read_picture(tmp_path / "absent.png", "absent.png")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(PictureError, match="is no ordinary file"):
        read_picture(tmp_path / "folder.png", "folder.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(PictureError, match="is no ordinary file"):
        read_picture(tmp_path / "pipe.png", "pipe.png")


def test_bombs_and_moving_pictures_are_refused(tmp_path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        )

    side = 10_000
    assert side * side > MAX_PIXELS
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(bomb)
    with pytest.raises(PictureError, match=r"^bomb.png: 10000 x 10000 pixels, at most"):
        read_picture(tmp_path / "bomb.png", "bomb.png")
    huge = bomb.replace(
        header, chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    )
    (tmp_path / "huge.png").write_bytes(huge)
    with pytest.raises(PictureError, match=r"^huge.png: .*pixels"):
        read_picture(tmp_path / "huge.png", "huge.png")
    frames = [Image.new("RGB", (8, 8), (n, 0, 0)) for n in (0, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "PNG", save_all=True, append_images=frames[1:])
    (tmp_path / "moving.png").write_bytes(buffer.getvalue())
    with pytest.raises(PictureError, match="holds 2 frames"):
        read_picture(tmp_path / "moving.png", "moving.png")
