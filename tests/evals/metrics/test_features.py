"""Recipes, the two resizes, and statistics files."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from evals.errors import InputError, UsageError
from evals.metrics import features
from evals.metrics.features import Recipe, center_crop, clean_resize, collect, load, save

RECIPE = Recipe("test", 5, "clean", 8, "ab" * 32)


def picture(width, height, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def cubic(x):
    x = np.abs(x)
    near, far = 1.5 * x**3 - 2.5 * x**2 + 1, -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def resize_matrix(n, size):
    """Bicubic with antialiasing from its definition: the kernel is stretched by the factor of reduction."""
    scale = n / size
    stretch = max(scale, 1.0)
    centers = (np.arange(size) + 0.5) * scale
    weights = cubic((np.arange(n) + 0.5 - centers[:, None]) / stretch)
    return weights / weights.sum(1, keepdims=True)


@pytest.mark.parametrize(("width", "height", "size"), [(97, 64, 29), (16, 20, 33), (40, 40, 40)])
def test_clean_resize_is_antialiased_bicubic(width, height, size):
    image = picture(width, height)
    pixels = np.asarray(image, dtype=float)
    expected = np.einsum("ay,yxc,bx->abc", resize_matrix(height, size), pixels, resize_matrix(width, size))
    got = clean_resize(image, size)
    assert got.dtype == np.float32 and got.shape == (size, size, 3)
    np.testing.assert_allclose(got, expected.clip(0, 255), atol=2e-3)
    if size < 40:
        assert not np.array_equal(got, got.round())  # not rounded to bytes


def test_clean_resize_removes_what_legacy_aliases():
    from evals.api import ModelOptions
    from evals.judges.features import create_stickers

    stripes = np.zeros((640, 640, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    image = Image.fromarray(stripes)
    by_resize = {
        name: create_stickers("", ModelOptions(device="cpu", extra={"resize": name}))._prepare(image)
        for name in features.RESIZES
    }
    assert by_resize["clean"][0, :, 8:-8, 8:-8].std() < 1  # grey
    assert by_resize["legacy"].std() == 0 and by_resize["legacy"].mean() == 255  # only the bright stripes are hit


def test_center_crop_takes_the_middle():
    wide = Image.fromarray(np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (100, 1, 3)))
    crop = np.asarray(center_crop(wide, 100))
    assert crop.shape == (100, 100, 3) and crop[0, 0, 0] == 50 and crop[0, -1, 0] == 149
    assert center_crop(picture(33, 47), 16).size == (16, 16)
    assert center_crop(picture(10, 10), 16).size == (16, 16)


def some_statistics(n=20, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, 5)).astype(np.float32)
    batches = [(values[:7], ["a"] * 7), (values[7:], ["b"] * (n - 7))]
    return values, collect(batches, RECIPE, "somewhere", "cd" * 32)


def test_statistics_survive_the_file(tmp_path):
    values, made = some_statistics()
    save(made, tmp_path / "s.safetensors")
    read = load(tmp_path / "s.safetensors")
    assert read.recipe == RECIPE and read.n == 20 and read.digest == made.digest
    np.testing.assert_array_equal(read.features, values)
    np.testing.assert_array_equal(read.gaussian.covariance, made.gaussian.covariance)
    np.testing.assert_array_equal(read.radii, made.radii)
    np.testing.assert_array_equal(read.of_group("b"), values[7:])
    assert len(read.of_group("c")) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["s.safetensors"]


def test_statistics_are_a_safetensors_file(tmp_path):
    from safetensors.numpy import load_file

    values, made = some_statistics()
    save(made, tmp_path / "s.safetensors")
    np.testing.assert_array_equal(load_file(tmp_path / "s.safetensors")["features"], values)


def test_digests_tell_recipes_and_sets_apart():
    _, made = some_statistics()
    changes = ({"resize": "legacy"}, {"crop_px": 256}, {"weights_sha256": "ff" * 32}, {"input_px": 9})
    digests = {replace(RECIPE, **change).digest for change in changes}
    assert len(digests | {RECIPE.digest}) == 5
    assert replace(made, features=made.features[:19]).digest != made.digest
    assert replace(made, source_sha256="ee" * 32).digest != made.digest


def test_unequal_recipes_are_refused_by_name():
    other = replace(RECIPE, resize="legacy", crop_px=256)
    with pytest.raises(UsageError, match=r"x\.safetensors was made by another recipe \(resize 'legacy', not 'clean'; "
                       r"crop_px 256, not None\)"):  # fmt: skip
        RECIPE.refuse_other(other, "x.safetensors")
    RECIPE.refuse_other(RECIPE, "x.safetensors")


def test_three_pictures_are_too_few():
    with pytest.raises(UsageError, match="holds 3 pictures, statistics need 4"):
        collect([(np.eye(5, dtype=np.float32)[:3], [""] * 3)], RECIPE, "somewhere", "")


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "foreign", "header", "counts"])
def test_damaged_and_foreign_files_are_refused(tmp_path, damage):
    _, made = some_statistics()
    path = tmp_path / "s.safetensors"
    save(made, path)
    data = path.read_bytes()
    if damage == "foreign":  # what pytorch-fid writes
        np.savez(tmp_path / "s.npz", mu=made.gaussian.mean, sigma=made.gaussian.covariance)
        data = (tmp_path / "s.npz").read_bytes()
    path.write_bytes(
        {
            "cut": data[:-8],
            "garbage": b"\xff" * 100,
            "empty": b"",
            "header": data[:8] + b"[" + data[9:],
            "counts": data.replace(b'\\"n\\": 20', b'\\"n\\": 21'),
        }.get(damage, data)
    )
    with pytest.raises(InputError, match="is no statistics file of this package"):
        load(path)


def test_the_recipe_can_be_read_without_this_package(tmp_path):
    _, made = some_statistics()
    save(made, tmp_path / "s.safetensors")
    data = (tmp_path / "s.safetensors").read_bytes()
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    record = json.loads(header["__metadata__"]["blip3o_eval"])
    assert record["recipe_digest"] == RECIPE.digest and record["n"] == 20
