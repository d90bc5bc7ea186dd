"""Pictures of every mode, size and state of damage: RGB of the asked size, or one clear error."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("hypothesis")

from hypothesis import assume, example, given
from hypothesis import strategies as st

from blip3o.errors import DataError
from blip3o.vision.preprocess import fit_square, qwen_size, to_rgb

MODES = ["1", "L", "P", "LA", "PA", "RGB", "RGBA", "RGBa", "La", "CMYK", "YCbCr", "LAB", "HSV", "RGBX",
         "I", "F", "I;16", "I;16B"]  # fmt: skip
FORMATS = ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]
SIDES = st.integers(0, 40) | st.sampled_from([201, 4000, 100_000])


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


@given(
    st.sampled_from(MODES),
    SIDES,
    SIDES,
    st.sampled_from(["crop", "square"]),
    st.sampled_from([None, 0, 255, (0, 0, 0), b"\0\xff", b"", "x", -1]),
)
@example("RGB", 1, 100_000, "crop", None)
@example("L", 4, 4, "crop", b"xx")
def test_any_mode_and_size_becomes_a_square_or_one_line(
    mode: str, width: int, height: int, fit: str, transparency: object
) -> None:
    assume(width * height < 10**6)
    image = Image.new(mode, (width, height))
    if transparency is not None:
        image.info["transparency"] = transparency
    try:
        fitted = fit_square(image, 32, fit)  # type: ignore[arg-type]
    except DataError as error:
        assert "\n" not in str(error) and len(str(error)) < 300
    else:
        assert fitted.mode == "RGB" and fitted.size == (32, 32)


@given(
    st.sampled_from(FORMATS),
    st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    st.integers(0, 2000),
)
def test_damaged_files_become_a_picture_or_one_line(
    kind: str, flips: list[tuple[int, int]], cut: int
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    data = bytearray(encoded(Image.fromarray(noise), kind))
    for place, value in flips:
        data[place % len(data)] = value
    del data[max(1, len(data) - cut % len(data)) :]
    try:
        image = Image.open(io.BytesIO(bytes(data)))
    except (OSError, ValueError, SyntaxError, TypeError, Image.DecompressionBombError):
        return  # refused by its reader before it gets here
    if image.width * image.height > 10**7:
        return  # a header that lies about its size; Pillow's own limit is far above
    try:
        assert to_rgb(image).mode == "RGB"
    except DataError as error:
        assert "\n" not in str(error)


def test_sixteen_bits_become_eight() -> None:
    """A 16-bit grey PNG was cut at 255: everything but the darkest 0.4 % turned white."""
    grey = np.linspace(0, 65535, 16).astype(np.uint16).reshape(4, 4)
    file = io.BytesIO(encoded(Image.fromarray(grey), "PNG"))
    expected = np.linspace(0, 255, 16).round().reshape(4, 4)
    for image in (Image.fromarray(grey), Image.open(file)):
        assert np.array_equal(np.asarray(to_rgb(image))[..., 0], expected)


@pytest.mark.parametrize("mode", ["I", "F"])
def test_numbers_without_a_range_are_refused(mode: str) -> None:
    with pytest.raises(DataError, match=f"mode {mode} does not say what is black"):
        to_rgb(Image.new(mode, (4, 4)))


def test_a_picture_without_pixels_is_refused() -> None:
    """It was a division by zero."""
    for size in ((0, 0), (0, 5), (5, 0)):
        with pytest.raises(DataError, match="has no pixels"):
            fit_square(Image.new("RGB", size), 32)


def test_a_narrow_picture_is_refused_before_it_fills_the_memory() -> None:
    """1 x 10,000 px became 448 x 4,480,000 px, 6 GB, before its centre was cut out."""
    for size in ((1, 10_000), (100_000, 1)):
        with pytest.raises(DataError, match="too narrow; at most 200 times as long as wide"):
            fit_square(Image.new("RGB", size), 448)
        with pytest.raises(DataError, match="too narrow"):
            qwen_size(*size, factor=28, min_pixels=3136, max_pixels=10**6)
    assert fit_square(Image.new("RGB", (1, 200)), 8).size == (8, 8)


def test_orientation_animation_and_palettes_are_followed() -> None:
    tall = Image.new("RGB", (4, 6), "red")
    exif = tall.getexif()
    exif[274] = 6
    assert to_rgb(Image.open(io.BytesIO(encoded(tall, "JPEG", exif=exif)))).size == (6, 4)
    frames = [Image.new("P", (4, 4), i) for i in range(3)]
    animated = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert to_rgb(Image.open(io.BytesIO(animated))).size == (4, 4)
    palette = Image.new("P", (4, 4))
    palette.info["transparency"] = 0
    assert to_rgb(palette).getpixel((0, 0)) == (255, 255, 255)


@given(st.binary(max_size=40))
def test_damaged_exif_is_no_obstacle(exif: bytes) -> None:
    data = encoded(Image.new("RGB", (4, 6)), "JPEG", exif=b"Exif\0\0" + exif)
    try:
        assert to_rgb(Image.open(io.BytesIO(data))).mode == "RGB"
    except DataError as error:
        assert "\n" not in str(error)
