"""The judge as a whole on random networks: batches, sizes, colours, settings, missing weights, self-test, warnings."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from PIL import Image

from evals.api import Detection, DetectionJudge, ModelOptions
from evals.errors import ConfigError, JudgeError, MissingRequirementError, UsageError
from evals.judges import detector_check
from evals.judges.detector import counted, create
from evals.judges.detector_check import DetectionWatch

SIZES = [(64, 64), (80, 48), (64, 64), (48, 96), (80, 48)]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    small = (rng.integers(0, 256, (6, 6, 3), dtype=np.uint8) for _ in SIZES)
    return [
        Image.fromarray(p).resize(s, Image.Resampling.BICUBIC)
        for p, s in zip(small, SIZES, strict=True)
    ]


@pytest.fixture
def options() -> ModelOptions:
    return ModelOptions(device="cpu")


@pytest.fixture
def judge(detector_folder, clip_folder, small_inputs, options):
    return create(f"{detector_folder},clip={clip_folder},self_test=false", options)


def by_class(row: list[Detection]) -> list[Detection]:
    return sorted(row, key=lambda one: (one.class_name, -one.score))


def test_batch_of_one_equals_batch_of_all_with_mixed_sizes(judge, pictures):
    assert isinstance(judge, DetectionJudge)
    names = ["person", "carrot", "hair drier"]
    together = judge.detect(pictures, [names] * len(pictures))
    for picture, row in zip(pictures, together, strict=True):
        (alone,) = judge.detect([picture], [names])
        alone, row = by_class(alone), by_class(row)
        assert [one.class_name for one in alone[:90]] == [one.class_name for one in row[:90]]
        for one, other in zip(alone, row, strict=True):
            assert one.score == pytest.approx(other.score, abs=1e-4)
            assert one.box == other.box or one.score < 0.01
            assert (one.color_logits is None) == (other.color_logits is None)
            if one.color_logits is not None:
                assert np.allclose(one.color_logits, other.color_logits, atol=1e-3)


def test_detections_are_in_the_pictures_own_pixels(judge, pictures):
    for picture, row in zip(pictures, judge.detect(pictures, [[]] * len(pictures)), strict=True):
        assert len(row) == 100
        assert all(one.box[2] <= picture.width and one.box[3] <= picture.height for one in row)
        masks = [one.mask for one in row if one.mask is not None]
        assert masks and all(m.shape == (picture.height, picture.width) for m in masks)
        assert all(one.mask is None for one in row if one.score < 0.1)


def test_colours_are_given_where_they_are_asked_and_count(judge, pictures):
    (row,) = judge.detect(pictures[:1], [[]])
    assert all(one.color_logits is None for one in row)
    strong = next(one for one in row if one.score > 0.3)
    (row,) = judge.detect(pictures[:1], [[strong.class_name]])
    for one in row:
        is_counted = one.class_name == strong.class_name and one.score > 0.3
        assert (one.color_logits is not None) == is_counted
        if is_counted:
            assert len(one.color_logits) == 10 and max(map(abs, one.color_logits)) <= 100


def test_counted_takes_the_best_16_and_ties_of_the_last():
    row = [Detection("cat", (0, 0, 1, 1), 0.9 - 0.01 * i) for i in range(15)]
    row += [Detection("cat", (0, 0, 1, 1), 0.5)] * 3 + [Detection("cat", (0, 0, 1, 1), 0.4)]
    row += [Detection("dog", (0, 0, 1, 1), 0.3), Detection("bus", (0, 0, 1, 1), 0.35)]
    assert counted(row, {"cat", "dog"}) == list(range(18))  # a stored 0.3 does not exceed 0.3


def test_geneval_scores_pictures_with_it(judge, pictures):
    from evals.api import Output, Sample, ScoreItem
    from evals.plugins.lookup import find_task

    task = find_task("geneval")
    items = [
        ScoreItem(Sample(str(i), i, s.group, s.prompt, s.metadata), Output(str(i), 0, 0), picture)
        for i, (s, picture) in enumerate(zip(task.samples()[::115], pictures, strict=True))
    ]
    scores = task.score(items, judge)
    assert all(score.value in (0.0, 1.0) for score in scores)
    assert {item.sample.group for item in items} >= {"single_object", "color_attr"}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_near_and_another_judge(
    judge, detector_folder, clip_folder, pictures, options, dtype
):
    spec = f"{detector_folder},clip={clip_folder},self_test=false,dtype={dtype},clip_dtype={dtype}"
    half = create(spec, options)
    assert half.identity.settings["dtype"] == half.identity.settings["clip_dtype"] == dtype
    assert half.identity.digest != judge.identity.digest
    (exact,), (rough,) = (j.detect(pictures[:1], [["carrot"]]) for j in (judge, half))
    assert abs(exact[0].score - rough[0].score) < 0.2
    assert {one.class_name for one in exact[:3]} & {one.class_name for one in rough[:3]}


def test_identity_names_both_networks(
    judge, detector_folder, clip_folder, make_tiny_detector, make_tiny_clip, tmp_path, options
):
    identity = judge.identity
    label = identity.settings["detector"]
    assert label.startswith("custom-")
    assert (identity.name, identity.domain) == (f"mask2former:{label}", "photos")
    other_clip = create(f"{detector_folder},clip={make_tiny_clip(tmp_path / 'c', seed=1)}", options)
    other = create(f"{make_tiny_detector(tmp_path / 'd', seed=1)},clip={clip_folder}", options)
    assert len({identity.digest, other_clip.identity.digest, other.identity.digest}) == 3
    assert other.identity.settings["detector"] != identity.settings["detector"]


def test_self_test_refuses_weights_without_meaning(
    detector_folder, clip_folder, small_inputs, options
):
    judge = create(f"{detector_folder},clip={clip_folder}", options)
    with pytest.raises(JudgeError, match="fails the self-test"):
        judge.load()


def test_self_test_passes_a_detector_that_sees():
    from evals.judges.mask2former_masks import Instance

    class Sees:
        def __init__(self, label, score, box, in_grey=0.1):
            self.answers = [[Instance(label, score, box, None)], [Instance(0, in_grey, box, None)]]

        def find(self, pictures, keep_masks_above=0.0):
            (picture,) = pictures
            assert picture.size == (512, 600)
            return [self.answers[len(picture.getcolors(2**24)) == 1]]

    classes, box = ("person", "bicycle"), (40, 20, 500, 600)
    detector_check.check_detector(Sees(0, 0.99, box), classes, "x")
    for bad in (
        Sees(1, 0.99, box),  # somebody else
        Sees(0, 0.4, box),  # hardly
        Sees(0, 0.9, (0, 0, 90, 90)),  # in the wrong place
        Sees(0, 0.99, box, in_grey=0.98),  # always
    ):
        with pytest.raises(JudgeError, match="self-test: on the portrait of a person"):
            detector_check.check_detector(bad, classes, "x")


def test_colour_self_test_counts_right_names():
    from evals.judges.clip_colors import COLORS

    class Named:
        def __init__(self, right):
            self.right = right

        def logits(self, squares, names):
            assert len({square.getpixel((0, 0)) for square in squares}) == 10
            return [
                tuple(float(j == (i if i < self.right else (i + 1) % 10)) for j in range(10))
                for i in range(len(COLORS))
            ]

    detector_check.check_colors(Named(6), "x")
    with pytest.raises(JudgeError, match="names 5 of 10"):
        detector_check.check_colors(Named(5), "x")


def test_warning_for_implausibly_few_detections(caplog):
    caplog.set_level(logging.WARNING, "evals")
    watch = DetectionWatch()
    for i in range(200):
        watch.see(0.1 if i % 2 else 0.95)
    assert not caplog.records  # half of the pictures hold something
    blind = DetectionWatch()
    for _ in range(200):
        blind.see(0.3)  # does not exceed the threshold
    assert [r.message for r in caplog.records] == [
        "the detector found no object in 50 of 50 pictures: if they are not blank, its weights or this device are "
        "at fault, and the score will be far too low"
    ]


def test_missing_weights_are_said_at_once_and_together(monkeypatch, tmp_path, options):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingRequirementError) as caught:
        create("", options)
    first, second = str(caught.value).splitlines()
    assert first.startswith("judge 'mask2former', objects")
    assert "hf download facebook/mask2former-swin-small-coco-instance" in first
    assert second.startswith("judge 'mask2former', colours (clip=...)")
    assert "hf download timm/vit_large_patch14_clip_224.openai" in second


def test_official_without_weights_names_the_file_and_the_command(clip_folder, options):
    with pytest.raises(MissingRequirementError, match="743b7d99.pth and run `blip3o-eval convert-mmdet"):
        create(f"official,clip={clip_folder}", options)


@pytest.mark.parametrize(
    ("spec", "extra", "message"),
    [
        ("x/y/z", {}, "neither a folder nor a hub id"),
        ("weights.pth", {}, "is a pickle, which is not loaded here: `blip3o-eval convert-mmdet"),
        (",dtype=int8", {}, "dtype='int8' of 'mask2former': give float32, bfloat16, float16"),
        (",padding=black", {}, "give grey, zero"),
        (",clip=a.pt", {}, "is no file, folder or hub id"),
        ("", {"clp": "x"}, "unknown argument 'clp' of 'mask2former'. Did you mean: clip?"),
        ("", {"self_test": "maybe"}, "give true or false"),
        ("", {"dtype": 16}, "give a text"),
        (",dtype=bfloat16", {"dtype": "float16"}, "give one"),
        ("a,b", {}, "give name=value"),
    ],
)
def test_bad_arguments_are_named(spec, extra, message):
    with pytest.raises(UsageError, match=message.replace("(", r"\(").replace(".", r"\.")):
        create(spec, ModelOptions(device="cpu", extra=extra))


def test_unknown_device_is_named(detector_folder, clip_folder):
    judge = create(f"{detector_folder},clip={clip_folder}", ModelOptions(device="cuda:99"))
    with pytest.raises(ConfigError, match="device 'cuda:99' cannot be used"):
        judge.load()


def test_auto_takes_this_judge_for_models_of_photos(monkeypatch):
    from evals.api import Identity
    from evals.config import RunConfig
    from evals.plugins import lookup

    class Photos:
        identity = Identity("m", "1", "", "photos")

    made = []
    task = lookup.find_task("geneval")
    monkeypatch.setattr(lookup, "_made", lambda known, name, *rest: made.append(name))
    lookup.find_judge(RunConfig(task="geneval"), task, Photos())
    assert made == ["mask2former"]


def test_class_names_of_the_public_checkpoint_are_understood(detector_folder, tmp_path):
    from blip3o.stickers import CLASSES
    from evals.judges.mask2former_weights import class_order

    names = dict(enumerate(CLASSES))
    renamed = {
        "motorcycle": "motorbike", "airplane": "aeroplane", "couch": "sofa", "potted plant": "pottedplant",
        "dining table": "diningtable", "tv": "tvmonitor", "computer mouse": "mouse", "tv remote": "remote",
        "computer keyboard": "keyboard",
    }  # fmt: skip
    meta = {str(i): renamed.get(name, name) for i, name in names.items()}
    assert class_order(meta) == tuple(CLASSES)
    swapped = {**meta, "0": "bicycle", "1": "person"}
    assert class_order(swapped)[:2] == ("bicycle", "person")
    with pytest.raises(UsageError, match="'banner' is none of them"):
        class_order({**meta, "3": "banner"})
    with pytest.raises(UsageError, match="it has 133 classes"):
        class_order({str(i): f"LABEL_{i}" for i in range(133)})


def test_weights_of_another_architecture_are_refused(detector_folder, clip_folder, tmp_path, options):
    import shutil

    folder = tmp_path / "other"
    shutil.copytree(detector_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_queries": 13}))
    with pytest.raises(JudgeError, match="cannot be loaded|do not fit"):
        create(f"{folder},clip={clip_folder}", options).load()
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "maskformer"}))
    with pytest.raises(UsageError, match="the judge needs 'mask2former'"):
        create(f"{folder},clip={clip_folder}", options)
    (folder / "model.safetensors").unlink()
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingRequirementError, match="holds no model.safetensors"):
        create(f"{folder},clip={clip_folder}", options)


def test_a_run_tells_that_the_self_test_was_left_out(judge, detector_folder, clip_folder, options):
    from evals.api import Identity
    from evals.manifest import _warnings

    class Photos:
        identity = Identity("m", "1", "", "photos")

    (warning,) = _warnings(Photos(), judge)
    assert "self_test=false" in warning
    tested = create(f"{detector_folder},clip={clip_folder}", options)
    assert _warnings(Photos(), tested) == []
