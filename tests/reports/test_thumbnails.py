import subprocess

import numpy as np
import pytest
from PIL import Image

from reports import thumbnails
from reports.thumbnails import Setting, choose_setting, open_picture


def noise(path, side, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_small_pictures_are_kept_as_they_are_when_they_fit(tmp_path):
    paths = [noise(tmp_path / f"{i}.png", 64, i) for i in range(3)]
    assert choose_setting(paths, 100) == Setting(None, None)


def test_a_tight_budget_is_kept_to(tmp_path):
    paths = [noise(tmp_path / f"{i}.png", 64, i) for i in range(3)]
    setting = choose_setting(paths, 1000, budget=6_000_000)
    assert setting.quality is not None
    size = sum(len(setting.encode(open_picture(path))) for path in paths) / 3
    assert size * 1000 * 4 / 3 <= 6_000_000


def test_large_pictures_are_made_small(tmp_path):
    path = noise(tmp_path / "a.png", 600)
    setting = choose_setting([path], 2212)
    assert setting.side_px is not None
    encoded = setting.encode(open_picture(path))
    assert len(encoded) * 2212 * 4 / 3 <= thumbnails.BUDGET_BYTES or setting == thumbnails._LARGE[-1]


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "P", "1", "LA", "CMYK", "I;16"])
def test_pictures_of_any_mode_are_read(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new(mode, (8, 8)).save(path)
    assert open_picture(path).mode == "RGB"


def test_what_cannot_be_read_is_none(tmp_path, monkeypatch):
    (tmp_path / "text.png").write_text("hello")
    torn = noise(tmp_path / "torn.png", 64)
    torn.write_bytes(torn.read_bytes()[:500])
    assert open_picture(tmp_path / "text.png") is None
    assert open_picture(torn) is None
    assert open_picture(tmp_path / "absent.png") is None
    assert open_picture(tmp_path) is None
    large = noise(tmp_path / "large.png", 64)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert open_picture(large) is None


@pytest.fixture
def large(tmp_path):
    paths = [noise(tmp_path / f"{i} \udcff.png", 200, i) for i in range(5)]
    paths[2].write_bytes(b"not a picture")
    return paths


def test_several_processes_make_what_one_makes(large, monkeypatch):
    setting = Setting(112, 65)
    alone = thumbnails.thumbnails(large, setting)
    assert alone[2] is None and (alone[0].width, alone[0].height) == (200, 200)
    started = []
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *a, **k: started.append(1) or run(*a, **k))
    monkeypatch.setattr(thumbnails, "MIN_PER_PROCESS", 2)
    monkeypatch.setattr(thumbnails, "_cores", lambda: 2)
    assert thumbnails.thumbnails(large, setting) == alone
    assert len(started) == 2
    assert thumbnails.thumbnails(large, Setting(None, None)) and len(started) == 2  # small ones


def test_the_share_of_a_process_that_dies_is_made_here(large, monkeypatch):
    setting = Setting(112, 65)
    alone = thumbnails.thumbnails(large, setting)
    monkeypatch.setattr(thumbnails, "MIN_PER_PROCESS", 2)
    monkeypatch.setattr(thumbnails, "_cores", lambda: 2)
    monkeypatch.setattr(thumbnails, "_CHILD", "import os; os._exit(9)")
    assert thumbnails.thumbnails(large, setting) == alone
