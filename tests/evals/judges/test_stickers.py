"""The sticker judge behind the harness's protocol, and the measurement of its verdicts."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

from blip3o.stickers import SceneConfig, make_scene, render
from evals.api import DetectionJudge, ModelOptions
from evals.errors import JudgeError, UsageError
from evals.judges.stickers import create
from evals.judges.stickers_accuracy import OracleJudge, ToldJudge, verdict_agreement, wrong_spec

EASY = SceneConfig.level("easy")


@pytest.fixture(scope="module")
def judge():
    judge = create("", ModelOptions(device="cpu"))
    judge.load()
    return judge


def pictures(scenes):
    return [Image.fromarray(render(s).image) for s in scenes]


def test_it_is_a_detection_judge_of_the_sticker_domain(judge):
    assert isinstance(judge, DetectionJudge)
    assert judge.identity.name == "stickers" and judge.identity.domain == "stickers"
    assert len(judge.identity.digest) == 64 and not judge.identity.is_test_double
    assert judge.accuracy()["seen_easy"]["verdict_agreement"] > 0.9


def test_creating_one_imports_no_torch():
    code = (
        "import sys; from evals.judges.stickers import create; from evals.api import ModelOptions;"
        "create('', ModelOptions()); assert 'torch' not in sys.modules, 'torch was imported'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_colours_come_for_the_asked_classes_only(judge):
    config = SceneConfig.level("easy", kinds=(("color_attr", 1.0),))
    scenes = [make_scene("test", 7000 + i, config) for i in range(4)]
    asked = [[scene.stickers[0].class_name] for scene in scenes]
    answered = 0
    for scene, found in zip(scenes, judge.detect(pictures(scenes), asked), strict=True):
        for one in found:
            assert (one.color_logits is not None) == (
                one.class_name == scene.stickers[0].class_name
            )
            assert one.extras["pixel_color"]
            assert one.mask.shape == (64, 64) and all(float(v).is_integer() for v in one.box)
            answered += one.color_logits is not None
    assert answered >= 3


def test_the_official_rules_agree_with_the_truth_on_sixteen_scenes(judge):
    from blip3o.stickers.judge_eval import Seen

    scenes = [make_scene("test", 8000 + i, EASY) for i in range(16)]
    inner = judge._judge.find(pictures(scenes))
    seen = [Seen(s, render(s), f) for s, f in zip(scenes, inner, strict=True)]
    assert verdict_agreement(seen)["verdict_agreement"] >= 0.9


def test_wrong_specs_are_wrong_and_true_specs_true_for_the_oracle():
    from evals.api import Output, Sample, ScoreItem
    from evals.plugins.lookup import find_task

    scenes = [make_scene("test", i, SceneConfig.level("full")) for i in range(150)]
    oracle = OracleJudge([(s, render(s)) for s in scenes])
    task = find_task("geneval")
    for make, verdict in ((lambda s: s.spec(), 1.0), (wrong_spec, 0.0)):
        specs = [make(s) for s in scenes]
        items = [
            ScoreItem(Sample(str(i), i, p["tag"], p["prompt"], p), Output(str(i), 0, 0))
            for i, p in enumerate(specs)
        ]
        values = [score.value for score in task.score(items, oracle)]
        # the layout may hold a second relation, or hide an object: a few changes leave the verdict as it was
        assert values.count(verdict) / len(values) > 0.95


def test_a_blind_judge_agrees_only_where_the_truth_is_no():
    from blip3o.stickers.judge_eval import Seen

    scenes = [make_scene("test", i, EASY) for i in range(20)]
    figures = verdict_agreement([Seen(s, render(s), []) for s in scenes])
    assert figures["verdict_agreement_when_true"] == 0.0
    assert figures["verdict_agreement_when_false"] == 1.0
    assert ToldJudge([[]]).detect([None], [[]]) == [[]]


def test_uneven_lists_are_refused(judge):
    with pytest.raises(UsageError, match="1 images with 2 lists"):
        judge.detect(pictures([make_scene("test", 0, EASY)]), [[], []])


def test_missing_weights_and_devices_are_named(tmp_path):
    with pytest.raises(JudgeError, match="judge.json cannot be read"):
        create(str(tmp_path), ModelOptions())
    with pytest.raises(UsageError, match="device 'tpu7' cannot be used"):
        create("", ModelOptions(device="tpu7")).load()
