"""The sprite pack: complete, undamaged, and readable without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.resources import files

import numpy as np
import pytest

from blip3o.errors import DataError
from blip3o.stickers import CLASSES, STYLES, sprites


def test_classes_are_genevals_object_names_in_order():
    text = (files("tasks") / "data" / "geneval" / "object_names.txt").read_text()
    assert tuple(text.split("\n"))[:80] == CLASSES


@pytest.mark.parametrize("style", STYLES)
def test_every_class_has_a_well_cropped_sprite_in_every_style(style):
    for name in CLASSES:
        for sprite in sprites.sprites(name, style):
            solid = sprite.rgba[..., 3] > 0
            assert max(solid.shape) == 96
            assert solid[0].any() and solid[-1].any(), (name, sprite.id)
            assert solid[:, 0].any() and solid[:, -1].any(), (name, sprite.id)
            # An object, not a speck: thin ones (toothbrush, fork) still cover a tenth of their box.
            assert (sprite.rgba[..., 3] >= 128).mean() > 0.1, (name, sprite.id)


def test_no_two_sprites_of_a_style_are_equal():
    for style in STYLES:
        pictures = [s.rgba.tobytes() for c in CLASSES for s in sprites.sprites(c, style)]
        assert len(set(pictures)) == len(pictures)


def test_unseen_style_shares_no_picture_with_the_training_styles():
    training = {
        s.rgba.tobytes() for c in CLASSES for t in ("fluent", "noto") for s in sprites.sprites(c, t)
    }
    assert all(
        s.rgba.tobytes() not in training for c in CLASSES for s in sprites.sprites(c, "twemoji")
    )


def test_unknown_class_style_and_sprite_are_named_in_the_error():
    with pytest.raises(KeyError, match="'unicorn'.*fluent, noto, twemoji"):
        sprites.sprites("unicorn", "noto")
    with pytest.raises(KeyError, match="'ffff'; it has 1f697"):
        sprites.sprite("car", "noto", "ffff")


def test_damaged_atlas_is_refused(tmp_path, monkeypatch):
    copy = shutil.copytree(sprites.ASSETS, tmp_path / "assets")
    data = bytearray((copy / "sprites.webp").read_bytes())
    data[5000] ^= 1
    (copy / "sprites.webp").write_bytes(data)
    monkeypatch.setattr(sprites, "ASSETS", copy)
    with pytest.raises(DataError, match="SHA-256"):
        sprites.pack.__wrapped__()


def test_patch_has_premultiplied_colour_and_the_asked_size():
    drawn = sprites.patch("wine glass", "noto", "1f377", None, 13, 28)
    assert drawn.color.shape == (28, 13, 3) and drawn.mask.shape == (28, 13)
    assert (drawn.color <= 255 - drawn.rest).all()
    assert np.array_equal(drawn.mask, drawn.rest[..., 0] <= 127)


def test_importing_the_world_needs_neither_torch_nor_transformers():
    code = (
        "import sys, blip3o.stickers, blip3o.stickers.captions, blip3o.stickers.questions, "
        "blip3o.stickers.edits, blip3o.stickers.sheet; "
        "print([m for m in ('torch', 'transformers', 'scipy', 'pandas', 'resvg_py') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_licences_and_credits_travel_with_the_pack():
    folder = sprites.ASSETS
    credit = (folder / "CREDITS.md").read_text()
    for word in ("Microsoft", "Google", "Twitter", "CC-BY"):
        assert word in credit
    names = sorted(p.name for p in (folder / "licenses").iterdir())
    assert names == ["fluent-emoji-MIT.txt", "noto-emoji-Apache-2.0.txt", "twemoji-CC-BY-4.0.txt"]
