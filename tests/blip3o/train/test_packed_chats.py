"""A packed segment is trained exactly as the conversation of its own that it stands for."""

import dataclasses

import pytest
import torch

from blip3o.pipeline import Blip3oPipeline
from blip3o.stickers import SceneConfig, make_scene, render
from blip3o.stickers.captions import article, long_caption
from blip3o.stickers.edits import make_edit
from blip3o.stickers.scenes import Placement, Sticker
from blip3o.stickers.sprites import sprites
from blip3o.train.nano_parts import scale_picture_tokens
from blip3o.train.packed_chats import PackedBatch, PackedRow, pack, packed_loss, packed_states
from blip3o.train.packed_data import USER, PackedConversations, answered, place_probes, rest_probes
from blip3o.train.world_data import to_pixels
from blip3o.vision.preprocess import qwen_patches

QUESTIONS = (("Is there a dog?", "no"), ("What color is the cup?", "red"), ("Describe.", "a cup"))


@pytest.fixture(scope="module")
def nano():
    pipeline = Blip3oPipeline.from_pretrained("nano")
    backbone = pipeline.model.backbone.vlm.float().eval()
    vision = backbone.config.vision_config

    def patches(pixels):
        return qwen_patches(
            pixels, vision.patch_size, vision.spatial_merge_size, vision.temporal_patch_size
        )

    return pipeline.tokenizer, backbone, patches


def batch_of(tokenizer, rows, pictures):
    pixels = to_pixels([render(scene).image for scene in pictures]) if pictures else None
    return PackedBatch([str(i) for i in range(len(rows))], *pack(tokenizer, rows), pixels=pixels)


def scene(index):
    return make_scene("val", index, SceneConfig.level("easy"))


@torch.no_grad()
def test_a_packed_segment_has_the_states_of_its_own_conversation(nano):
    tokenizer, backbone, patches = nano
    prefix = USER + "<|vision_start|>" + "<|image_pad|>" * 16 + "<|vision_end|>"
    segments = tuple(answered(*pair) for pair in QUESTIONS)
    packed = batch_of(tokenizer, [PackedRow(prefix, segments)], [scene(0)])
    states = packed_states(backbone, packed, patches)
    n_prefix = int((packed.segments == 0).sum())
    for number, segment in enumerate(segments, start=1):
        text = prefix + "".join(piece for piece, _ in segment)
        ids = tokenizer([text], add_special_tokens=False, return_tensors="pt")["input_ids"]
        rows, grid = patches(packed.pixels)
        alone = backbone.model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            pixel_values=rows,
            image_grid_thw=grid,
            mm_token_type_ids=(ids == backbone.config.image_token_id).int(),
        ).last_hidden_state
        mine = packed.segments[0] == number
        assert packed.input_ids[0, mine].tolist() == ids[0, n_prefix:].tolist()
        torch.testing.assert_close(states[0, mine], alone[0, n_prefix:], rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_neither_padding_nor_another_segment_changes_a_row(nano):
    tokenizer, backbone, patches = nano
    first, second, third = (answered(*pair) for pair in QUESTIONS)
    short = PackedRow(USER, (first, second))
    alone = packed_states(backbone, batch_of(tokenizer, [short], []), patches)
    beside = batch_of(tokenizer, [short, PackedRow(USER, (third,) * 6)], [])
    n = alone.shape[1]
    torch.testing.assert_close(
        packed_states(backbone, beside, patches)[:1, :n], alone, rtol=1e-4, atol=1e-4
    )
    other = batch_of(tokenizer, [PackedRow(USER, (third, second))], [])
    where = other.segments[0] == 2
    mine = batch_of(tokenizer, [short], []).segments[0] == 2
    torch.testing.assert_close(
        packed_states(backbone, other, patches)[0, where], alone[0, mine], rtol=1e-4, atol=1e-4
    )


def test_weights_make_a_segment_count_by_the_root_of_its_length(nano):
    tokenizer, backbone, patches = nano
    batch = batch_of(tokenizer, [PackedRow(USER, tuple(answered(*p) for p in QUESTIONS))], [])
    for number in (1, 2, 3):
        learned = (batch.segments == number) & (batch.labels != -100)
        count = int(learned.sum())
        assert batch.weights[learned].sum().item() == pytest.approx(count**0.5)
    assert (batch.weights[batch.labels == -100] == 0).all()
    loss, numbers = packed_loss(backbone, batch, patches)
    loss.backward()
    assert 0 <= numbers["answer_accuracy"] <= 1
    assert all(torch.isfinite(p.grad).all() for p in backbone.model.language_model.parameters())


def test_sticker_conversations_are_a_function_of_the_step(nano):
    tokenizer, _, _ = nano
    data = PackedConversations("train", SceneConfig.level("easy"), tokenizer, 16, scenes=3, edits=2)
    one, again, other = data(5), data(5), data(6)
    for a, b, c in zip(one, again, other, strict=True):
        assert a is not None and b is not None and c is not None
        assert torch.equal(a.input_ids, b.input_ids) and torch.equal(a.labels, b.labels)
        assert a.input_ids.shape != c.input_ids.shape or not torch.equal(a.input_ids, c.input_ids)
    image_pad = tokenizer.convert_tokens_to_ids("<|image_pad|>")
    for part in one:
        n_pictures = 0 if part.pixels is None else len(part.pixels)
        assert int((part.input_ids == image_pad).sum()) == 16 * n_pictures
    # no answer is learned before its question: every learned run follows the assistant's header
    text = tokenizer.decode(one[0].input_ids[0][one[0].labels[0] != -100])
    assert text.count("<|im_end|>") == int(one[0].segments[0].max())


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        (((0.25, 0.5), (0.75, 0.5)), {("a, left or right", "left"), ("b, left or right", "right"),
                                      ("a to b", "left of"), ("b to a", "right of")}),
        (((0.5, 0.8), (0.5, 0.2)), {("a, above or below", "below"), ("b, above or below", "above"),
                                    ("a to b", "below"), ("b to a", "above")}),
        (((0.5, 0.55),), set()),
    ],
)  # fmt: skip
def test_probes_tell_halves_and_relations_by_the_places_of_the_objects(at, expected):
    stickers = tuple(
        Sticker(name, None, "noto", sprites(name, "noto")[0].id, Placement(x, y, 0.3))
        for name, (x, y) in zip(("dog", "car"), at, strict=False)
    )
    found = place_probes(dataclasses.replace(scene(0), stickers=stickers))
    plain = {(p.replace("dog", "a").replace("car", "b"), reply) for p, reply in found}
    assert plain == expected and len(found) == len(expected)


def test_objects_that_stand_more_than_once_are_not_asked_for_their_place():
    counted = next(s for s in map(scene, range(200)) if s.kind == "counting")
    assert place_probes(counted) == []


def test_a_probe_asks_for_what_a_picture_of_two_shows_besides_one():
    pair = next(s for s in map(scene, range(200)) if s.kind == "color_attr")
    a, b = pair.stickers
    assert rest_probes(pair) == [
        (f"besides the {a.class_name}", f"{article(b.color)} {b.class_name}"),
        (f"besides the {b.class_name}", f"{article(a.color)} {a.class_name}"),
    ]
    plain = next(s for s in map(scene, range(200)) if s.kind == "two_object")
    assert {reply for _, reply in rest_probes(plain)} == {article(s.class_name) for s in plain.stickers}
    for kind in ("counting", "single_object"):
        assert rest_probes(next(s for s in map(scene, range(200)) if s.kind == kind)) == []


@pytest.mark.parametrize("rest", [0, 2])
def test_rest_probes_join_what_else_is_asked(nano, rest):
    tokenizer, _, _ = nano
    rows = {"scenes": 12, "edits": 0, "texts": 1, "imagined": 0, "quartets": 0, "dialogues": 0}
    batch = PackedConversations("train", SceneConfig.level("easy"), tokenizer, 16, rest=rest, **rows)(0)[0]
    assert ("besides the " in tokenizer.decode(batch.input_ids.flatten())) == bool(rest)


def test_place_probes_join_what_else_is_asked(nano):
    tokenizer, _, _ = nano
    world = SceneConfig.level("easy")
    rows = {"scenes": 3, "edits": 0, "texts": 1, "imagined": 0, "quartets": 0, "dialogues": 0}
    for places in (0, 6):
        batch = PackedConversations("train", world, tokenizer, 16, places=places, **rows)(0)[0]
        text = tokenizer.decode(batch.input_ids.flatten())
        assert (" or right:" in text or " or below:" in text) == bool(places)


def test_an_edit_is_answered_by_the_caption_of_the_edited_scene(nano):
    tokenizer, _, _ = nano
    rows = dict(scenes=0, texts=1, imagined=0, quartets=0, dialogues=0)
    world = SceneConfig.level("easy")
    batch = PackedConversations("train", world, tokenizer, 16, edits=3, first=6, **rows)(0)[0]
    for row, index in enumerate((6, 7, 8)):
        edit = make_edit("train", index, world)
        mine = batch.segments[row] == 1
        asked = tokenizer.decode(batch.input_ids[row][mine])
        learned = tokenizer.decode(batch.labels[row][mine & (batch.labels[row] != -100)])
        assert learned == f"{long_caption(edit.target)}<|im_end|>"
        assert asked.startswith(f"\n{edit.instruction}<|im_end|>")
        assert torch.equal(batch.pixels[row], to_pixels([render(edit.source).image])[0])


def test_picture_tokens_are_brought_to_the_scale_of_words(nano):
    _, backbone, patches = nano
    pixels = to_pixels([render(scene(i)).image for i in range(8)])

    def tokens():
        rows, grid = patches(pixels)
        found = backbone.model.visual(rows, grid_thw=grid).pooler_output
        return found if isinstance(found, torch.Tensor) else torch.cat(list(found))

    with torch.no_grad():
        before = tokens()
        scale_picture_tokens(backbone, pixels)
        after = tokens()
    words = backbone.get_input_embeddings().weight.std()
    assert after.std().item() == pytest.approx(words.item(), rel=1e-3)
    torch.testing.assert_close(after / after.std(), before / before.std(), rtol=1e-3, atol=1e-3)
