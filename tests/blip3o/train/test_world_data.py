"""Training batches of the sticker world: what is learned, and that a step always gives the same batch."""

from __future__ import annotations

import pytest
import torch

from blip3o.errors import DataError
from blip3o.stickers import CLASSES, COLORS, SceneConfig, make_scene, render
from blip3o.stickers.captions import long_caption, prompt
from blip3o.train.feature_cache import CachedFeatures, cache_key, write_shard
from blip3o.train.stages import cell_features
from blip3o.train.tokenizer import SPECIAL_TOKENS, train_tokenizer
from blip3o.train.world_data import (
    CellLabels,
    Scenes,
    chat_pieces,
    tokenize_chats,
)

WORLD = SceneConfig.level("easy")


@pytest.fixture(scope="module")
def tokenizer():
    scenes = [make_scene("train", i, WORLD) for i in range(300)]
    texts = [text for scene in scenes for text in (prompt(scene), long_caption(scene))]
    return train_tokenizer([*texts, "You are a helpful assistant.", "user", "system"], 600)


def test_special_tokens_come_first_and_any_text_survives(tokenizer):
    assert tokenizer.convert_tokens_to_ids(list(SPECIAL_TOKENS)) == list(range(len(SPECIAL_TOKENS)))
    for text in ("a photo of a zebra", "Zażółć gęślą jaźń 漢字 🦓", "  two  spaces\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_chats_are_written_as_the_chat_template_writes_them(tokenizer):
    turns = [("What is it?", "a dog"), ("Where?", "left")]
    content = [{"type": "image"}, {"type": "text", "text": turns[0][0]}]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": turns[0][1]},
        {"role": "user", "content": turns[1][0]},
        {"role": "assistant", "content": turns[1][1]},
    ]
    template = tokenizer.apply_chat_template(messages, tokenize=False)
    assert "".join(text for text, _ in chat_pieces(turns, n_image_tokens=1)) == template


def test_only_answers_and_their_end_are_learned(tokenizer):
    ids, mask, labels = tokenize_chats(
        tokenizer,
        [chat_pieces([("Where?", "left")], 0), chat_pieces([("Is it?", "yes"), ("?", "no")], 4)],
    )
    learned = [tokenizer.decode(row[row != -100]) for row in labels]
    assert learned == ["left<|im_end|>", "yes<|im_end|>no<|im_end|>"]
    assert torch.equal(labels[labels != -100], ids[labels != -100])
    assert (ids[mask == 0] == tokenizer.pad_token_id).all() and (labels[mask == 0] == -100).all()


def test_every_cell_is_labelled_after_what_covers_it():
    batch = CellLabels("train", WORLD, 4, first=0)(0)
    for row in range(4):
        scene = make_scene("train", row, WORLD)
        masks = render(scene).masks
        for cell in range(16):
            y, x = divmod(cell, 4)
            cover = masks[:, 16 * y : 16 * y + 16, 16 * x : 16 * x + 16].mean(axis=(1, 2))
            class_, color = batch.classes[row, cell], batch.colors[row, cell]
            if cover.max() < 0.1:
                assert class_ == CellLabels.NO_CLASS and color == CellLabels.NO_COLOR
            else:
                sticker = scene.stickers[cover.argmax()]
                assert CLASSES[class_] == sticker.class_name
                assert (*COLORS, None)[color] == sticker.color


def test_cell_features_gather_the_positions_of_each_cell():
    features = torch.randn(2, 5, 8, 8)
    cells = cell_features(features, grid=4)
    normal = torch.nn.functional.layer_norm(features.movedim(1, -1), (5,))
    own = normal[1, 2:4, 6:8].reshape(-1)  # rows 2-3 and columns 6-7 are the cell (1, 3)
    assert cells.shape == (2, 16, 20) and torch.allclose(cells[1, 1 * 4 + 3], own)


def test_cached_features_are_those_of_their_scenes_and_stale_ones_are_refused(tmp_path):
    def features_of(pixels):
        return pixels[:, :, ::16, ::16]

    key = cache_key("train", WORLD, "weights-1")
    write_shard(tmp_path, 0, 8, "train", WORLD, features_of, key, batch=4)
    cached = CachedFeatures(tmp_path, key, "train", WORLD, batch_size=4, seed=0, shards=1)
    batch = cached(0)
    pixels = Scenes("train", WORLD, 8)(0).pixels
    for id_, features in zip(batch.ids, batch.features, strict=True):
        own = features_of(pixels[int(id_.removeprefix("train/"))][None])[0]
        assert torch.allclose(features, own, atol=1e-3)
    assert sorted(batch.ids + cached(1).ids) == sorted(f"train/{i}" for i in range(8))
    with pytest.raises(DataError, match="other weights or scenes"):
        CachedFeatures(tmp_path, cache_key("train", WORLD, "2"), "train", WORLD, 4, 0, shards=1)
    with pytest.raises(DataError, match="holds 1 of 2 shards"):
        CachedFeatures(tmp_path, key, "train", WORLD, 4, 0, shards=2)
    file = next(tmp_path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError, match="cannot be read .*remove it and fill the cache again"):
        CachedFeatures(tmp_path, key, "train", WORLD, 4, 0, shards=1)
