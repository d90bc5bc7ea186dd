"""Sticker editions: oracle, wrong and empty answers, chance, what scenes may show, digests, whole runs."""

from __future__ import annotations

import functools
import math
import random
from collections import Counter

import pytest

from blip3o.stickers import CLASSES, COLORS, RELATIONS, render
from blip3o.stickers.make import picture_held_out
from evals import evaluate
from evals.api import (
    Answerer,
    AnswerRequest,
    ModelOptions,
    Output,
    PairedMetric,
    ScoreItem,
    ScoreRow,
)
from evals.errors import InputError
from evals.phases.plan import spread_evenly
from evals.recorded import Field
from tasks.understanding.caption_stickers import CaptionStickers
from tasks.understanding.classify_stickers import ClassifyStickers
from tasks.understanding.mme_stickers import MmeStickers
from tasks.understanding.mmmu_stickers import MmmuStickers
from tasks.understanding.stickers_base import placed
from tasks.understanding.stickers_words import classes_named
from tasks.understanding.vqa_stickers import VqaStickers, allowed, annotators_say, disagree

TASKS = {
    "mme_stickers": MmeStickers,
    "vqa_stickers": VqaStickers,
    "mmmu_stickers": MmmuStickers,
    "caption_stickers": CaptionStickers,
    "classify_stickers": ClassifyStickers,
}
# Name -> number of questions and digest of their texts, documents and pixels.
GOLDEN = {
    "mme_stickers": (480, "ee57c700c3a53d9899068ee950963fd46875a078f106a8ac8d4aacb37b1fe094"),
    "vqa_stickers": (391, "c3ba1d319027bc8f2dcd577b37a44abff773fc6b79f96bd5c57b0f7e68505e79"),
    "mmmu_stickers": (300, "ba3c03a4229679981b05bd0bc725a98f07a4c729a2237e1d7ba51078ac7612bd"),
    "caption_stickers": (200, "30d6caa79f14937d9280033f582be3db355be27bdfb38c5bca11cf5383f88ba5"),
    "classify_stickers": (320, "336a0d35bd3bc56b1da50e5633c4ebaec1ad051c350d475fe9ec7b5b8b81c8e8"),
}


@functools.cache
def task_of(name: str):
    return TASKS[name]()


def truth(name: str, record) -> str:
    """The right answer of a document."""
    if name == "caption_stickers":
        return "There is " + " and ".join(f"a {one}" for one in record["shown"]) + "."
    key = {"vqa_stickers": "multiple_choice_answer", "classify_stickers": "class"}
    return record[key.get(name, "answer")]


def wrong(name: str, record) -> str:
    """An answer of the asked form that nobody gave."""
    if name == "mme_stickers":
        return "no" if record["answer"] == "Yes" else "yes"
    if name == "mmmu_stickers":
        return next(letter for letter in "ABCD" if letter != record["answer"])
    if name == "vqa_stickers":
        said = {one["answer"] for one in record["answers"]}
        return next((one for one in allowed(record["answer_type"]) if one not in said), "perhaps")
    shown = record.get("shown", [record.get("class")])
    return "a " + next(one for one in CLASSES if one not in shown)


def rows_of(name: str, answer_of, samples=None) -> list[ScoreRow]:
    task = task_of(name)
    samples = task.samples() if samples is None else samples
    items = [ScoreItem(s, Output(s.id, 0, 1, text=answer_of(name, s.metadata))) for s in samples]
    return [
        ScoreRow(s.id, 0, s.group, score)
        for s, score in zip(samples, task.score(items, None), strict=True)
    ]


def figures(name: str, rows):
    return {metric.name: metric.compute(rows) for metric in task_of(name).metrics()}


every_task = pytest.mark.parametrize("name", TASKS)
HIGHEST = {"perception": 800, "perception_lmms_eval": 800, "seen_half": 600, "unseen_half": 600}


@every_task
def test_true_answers_score_one(name) -> None:
    task, found = task_of(name), figures(name, rows_of(name, truth))
    for metric in found.values():
        if "chance" in metric.name:
            continue
        lowest = metric.name == "unparsed" or metric.name.startswith("chair")
        highest = 200 if metric.unit == "points" else 1
        if metric.unit == "points":
            highest = HIGHEST.get(metric.name, highest)
        assert metric.value == (0 if lowest else highest), metric
    headline = next(iter(found.values()))
    assert headline.unscored == 0 and headline.clusters == len(
        {s.metadata["picture"] for s in task.samples()}
    )


@every_task
def test_wrong_answers_score_nothing_and_are_parsed(name) -> None:
    rows = rows_of(name, wrong)
    assert {row.score.value for row in rows} == {0.0}
    found = figures(name, rows)
    assert next(iter(found.values())).value == 0 and found["unparsed"].value == 0
    if name == "caption_stickers":
        assert found["chair_i"].value == found["chair_s"].value == 1


@every_task
def test_empty_answers_are_wrong_and_counted(name) -> None:
    rows = rows_of(name, lambda *_: " \n")
    found = figures(name, rows)
    assert {row.score.value for row in rows} == {0.0}
    assert found["unparsed"].value == 1 and found["unparsed"].n == len(task_of(name).samples())
    if name == "caption_stickers":
        assert found["chair_i"].value is None and found["chair_s"].value == 0


@every_task
def test_questions_are_what_they_were(name) -> None:
    task = task_of(name)
    assert (len(task.samples()), task.digest()) == GOLDEN[name]


@every_task
def test_the_halves_show_what_they_say(name) -> None:
    for asked in task_of(name).ask():
        splits = {scene.split for scene in asked.scenes}
        assert splits == {asked.metadata["split"]} and splits.isdisjoint({"train", "val", "judge"})
        held = [picture_held_out(scene.stickers) for scene in asked.scenes]
        # What is asked for is held out; pictures beside it need not be told apart.
        assert all(held) if splits == {"test_unseen"} else not any(held)
    rows = rows_of(name, truth)
    assert {row.score.details["held_out"] for row in rows} == {True, False}


@every_task
def test_ids_differ_and_groups_are_known(name) -> None:
    task = task_of(name)
    samples = task.samples()
    assert len({s.id for s in samples}) == len(samples) == samples[-1].number + 1
    assert set(task.groups) == {s.group for s in samples}
    assert all(s.images and {i.size for i in s.images} == {(64, 64)} for s in samples)
    assert all(s.max_new_tokens in (16, 128) for s in samples)


@every_task
def test_metrics_average_their_terms(name) -> None:
    rng = random.Random(1)
    rows = rows_of(name, lambda n, r: rng.choice((truth, wrong, lambda *_: ""))(n, r))
    for metric in task_of(name).metrics():
        if isinstance(metric, PairedMetric):
            terms, value = metric.terms(rows), metric.compute(rows)
            strata = terms.strata or [""] * len(terms.values)
            groups: dict = {}
            for stratum, number in zip(strata, terms.values, strict=True):
                groups.setdefault(stratum, []).append(number)
            mean = sum(math.fsum(v) / len(v) for v in groups.values()) / len(groups)
            assert value.value == pytest.approx(terms.scale * mean), metric.name
            assert len(set(terms.keys)) == len(terms.keys)
            assert value.clusters == len(set(terms.clusters)) and value.ci95 is not None


# -- chance --------------------------------------------------------------------------------------------


def guess(rng: random.Random):
    def answer(name: str, record) -> str:
        if name == "mme_stickers":
            return rng.choice(("yes", "no"))
        if name == "mmmu_stickers":
            return rng.choice("ABCD")
        if name == "classify_stickers":
            return rng.choice(CLASSES)
        return rng.choice(allowed(record["answer_type"]))

    return answer


@pytest.mark.parametrize("name", ["mme_stickers", "vqa_stickers", "mmmu_stickers", "classify_stickers"])
def test_guessing_scores_the_chance_that_is_stated(name) -> None:
    rng = random.Random(2)
    rows = [row for _ in range(12) for row in rows_of(name, guess(rng))]
    values = [row.score.value for row in rows]
    mean = sum(values) / len(values)
    error = math.sqrt(sum((v - mean) ** 2 for v in values)) / len(values)
    stated = sum(row.score.details["chance"] for row in rows) / len(rows)
    assert abs(mean - stated) < 4 * error
    chance = figures(name, rows_of(name, truth))["chance"]
    assert chance.value == (300 if name == "mme_stickers" else pytest.approx(stated))
    assert chance.ci95 is None and figures(name, [])["chance"].value is None


def test_one_answer_to_everything_scores_no_more_than_chance() -> None:
    for said in ("yes", "no"):
        found = figures("mme_stickers", rows_of("mme_stickers", lambda *_, said=said: said))
        assert found["perception"].value == 200 and found["accuracy"].value == 0.5
    for letter in "ABCD":
        found = figures("mmmu_stickers", rows_of("mmmu_stickers", lambda *_, said=letter: said))
        assert all(0.24 <= found[k].value <= 0.26 for k in ("accuracy", "count", "position"))
    counts = Counter(
        truth("vqa_stickers", s.metadata) for s in task_of("vqa_stickers").samples() if s.group == "number"
    )
    assert counts == dict.fromkeys("1234", 15)


def test_a_description_of_everything_is_scored_against_other_pictures_for_its_chance() -> None:
    everything = ". ".join(f"a {name}" for name in CLASSES)
    found = figures("caption_stickers", rows_of("caption_stickers", lambda *_: everything))
    assert found["object_recall"].value == found["chance_object_recall"].value == 1
    assert found["f1"].value == pytest.approx(found["chance"].value, abs=0.001)
    assert found["chair_i"].value == pytest.approx(1 - 1.5 / 80)
    told = figures("caption_stickers", rows_of("caption_stickers", truth))
    assert 0 < told["chance"].value < 0.03 < 0.95 < told["chance_chair_i"].value < 1
    one = rows_of("caption_stickers", truth)[:1]
    assert figures("caption_stickers", one)["chance"].value is None


# -- each task's own -----------------------------------------------------------------------------------


def test_a_pair_has_one_yes_and_one_no_and_limits_keep_it_whole() -> None:
    task = task_of("mme_stickers")
    pairs: dict[str, list[str]] = {}
    for sample in task.samples():
        pairs.setdefault(sample.unit, []).append(sample.metadata["answer"])
    assert all(sorted(answers) == ["No", "Yes"] for answers in pairs.values()) and len(pairs) == 240
    first = Counter(answers[0] for answers in pairs.values())
    assert 90 < first["Yes"] < 150  # which of the two comes first says nothing
    for limit in (1, 7, 30):
        units = Counter(s.unit for s in spread_evenly(task.samples(), task.groups, limit))
        assert set(units.values()) == {2} and limit <= sum(units.values()) <= limit + 8


def test_annotators_disagree_as_documented() -> None:
    task = task_of("vqa_stickers")
    differing = Counter()
    for sample in task.samples():
        record = sample.metadata
        kind, right = record["answer_type"], record["multiple_choice_answer"]
        said = [one["answer"] for one in record["answers"]]
        assert len(said) == 10 and said == annotators_say(kind, right, record["question_id"])
        assert {one for one in said if one != right} <= set(disagree(kind, right))
        differing[10 - said.count(right)] += 1
    assert max(differing) <= 3 and differing[0] < len(task.samples())
    share = sum(k * n for k, n in differing.items()) / (10 * len(task.samples()))
    assert 0.03 < share < 0.06


def test_a_disagreeing_answer_scores_by_how_many_gave_it() -> None:
    task = task_of("vqa_stickers")
    record = dict(next(s for s in task.samples() if s.group == "color").metadata)
    for n, wanted in ((0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9)):
        said = ["red"] * (10 - n) + ["crimson"] * n
        record["answers"] = [{"answer": a, "answer_id": i} for i, a in enumerate(said)]
        assert task.verdict(record, "Crimson.").value == pytest.approx(wanted)
        assert task.verdict(record, "red").value == 1


def test_answers_of_vqa_follow_from_the_pictures() -> None:
    for asked in task_of("vqa_stickers").ask():
        scene, right = asked.scenes[0], asked.record["multiple_choice_answer"]
        if asked.group == "number":
            assert int(right) == len(render(scene).boxes)
        elif asked.group == "object":
            assert [s.class_name for s in scene.stickers] == [right]
        elif asked.group == "color":
            name = asked.prompt.removeprefix("What color is the ").removesuffix("?")
            assert [s.color for s in scene.stickers if s.class_name == name] == [right]
        elif asked.group == "position":
            assert right in RELATIONS and scene.kind == "position"


def test_choices_among_pictures_have_one_right_answer() -> None:
    for asked in task_of("mmmu_stickers").ask():
        place = "ABCD".index(asked.record["answer"])
        if asked.group == "most_objects":
            counts = [len(scene.stickers) for scene in asked.scenes]
            assert sorted(counts) == [1, 2, 3, 4] and counts[place] == 4
        elif asked.group == "which_picture":
            named = classes_named(asked.prompt.split("shows ", 1)[1].split("?")[0])
            words = asked.prompt.split("?")[0].split()
            colors = {w for w in words if w in COLORS}

            def fits(scene, named=named, colors=colors) -> bool:
                mine = [s for s in scene.stickers if s.class_name in named]
                by_color = not colors or {s.color for s in mine} <= colors
                return {s.class_name for s in mine} == set(named) and by_color

            assert [fits(scene) for scene in asked.scenes].index(True) == place
            assert sum(fits(scene) for scene in asked.scenes) == 1
        else:
            assert len(asked.scenes) == 1


@pytest.mark.parametrize(
    ("text", "f1", "mentions", "reason"),
    [
        ("A dog and a cat; the dog is left.", 1.0, 3, ""),
        ("A dog.", 2 / 3, 1, "leaves something out"),
        ("A dog, a cat and a bus.", 0.8, 3, "names what is not there"),
        ("A dog and a bus.", 0.5, 2, "names what is not there, leaves some out"),
        ("A red thing.", 0.0, 0, "names nothing"),
    ],
)
def test_descriptions(text, f1, mentions, reason) -> None:
    score = task_of("caption_stickers").verdict({"shown": ["cat", "dog"]}, text)
    assert score.value == pytest.approx(f1) and score.reason == reason
    assert len(score.details["mentions"]) == mentions and len(reason) <= 40
    assert score.details["hallucinates"] == ("not there" in reason)


def test_chair_counts_mentions_and_descriptions() -> None:
    task = task_of("caption_stickers")
    texts = ["a dog, the dog, a bus", "a cat", "nothing", "a bus and a bus"]
    shown = [["dog"], ["cat", "tie"], ["tv"], ["dog"]]
    rows = []
    for i, (text, there) in enumerate(zip(texts, shown, strict=True)):
        record = {"shown": there, "split": "test_seen", "picture": str(i)}
        rows.append(ScoreRow(str(i), 0, "one_object", placed(task.verdict(record, text), record)))
    found = figures("caption_stickers", rows)
    assert found["chair_i"].value == 3 / 6 and found["chair_i"].clusters == 3
    assert found["chair_s"].value == 2 / 4 and found["object_recall"].value == 2 / 5
    # Against the other pictures: dog (2 mentions) is right once of three, cat and bus never.
    assert found["chance_chair_i"].value == pytest.approx(1 - 2 / 18)


def test_naming_two_classes_is_no_answer() -> None:
    task, record = task_of("classify_stickers"), {"class": "dog"}
    assert task.verdict(record, "A puppy!").value == 1
    both = task.verdict(record, "a dog or a cat")
    assert both.value == 0 and both.details["unparsed"] and both.details["named"] == ["dog", "cat"]
    assert task.verdict(record, "hot dog").answer == "hot dog"
    assert Counter(s.metadata["class"] for s in task.samples()) == dict.fromkeys(CLASSES, 4)


def test_a_subclass_may_ask_for_short_answers() -> None:
    class Short(VqaStickers):
        name, prompt_end = "vqa_stickers_short", "\nAnswer with one word."

    assert all(s.prompt.endswith("?\nAnswer with one word.") for s in Short().samples())
    assert Short().digest() != task_of("vqa_stickers").digest()


# -- doors ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mme_stickers", "vqa_stickers", "mmmu_stickers"])
def test_recorded_answers_score_as_in_a_run(name) -> None:
    task = task_of(name)
    samples = task.samples()[:40]
    lines = [
        Field({"n": s.number, "doc": dict(s.metadata), "response": truth(name, s.metadata)}, f"x:{s.number}")
        for s in samples
    ]
    rows = task.score_recorded("answers", lines)
    assert [row["result"]["value"] for row in rows[:-1]] == [1.0] * 40
    assert all(row["prompt"] == s.prompt for row, s in zip(rows, samples, strict=False))
    ran = figures(name, rows_of(name, truth, samples))
    for metric, value in rows[-1]["aggregate"]["metrics"].items():
        assert value["value"] == ran[metric].value
    by_lmms_eval = task.score_recorded("answers", lines, "lmms-eval")[-1]["aggregate"]["metrics"]
    assert list(by_lmms_eval.values())[0] in (1.0, 200.0)


@pytest.mark.parametrize("key", ["split", "picture", "chance"])
def test_a_recorded_document_without_its_place_is_refused_by_name(key) -> None:
    task = task_of("mme_stickers")
    doc = {k: v for k, v in task.samples()[0].metadata.items() if k != key}
    line = Field({"n": 0, "doc": doc, "response": "yes"}, "x.jsonl:1")
    with pytest.raises(InputError, match=rf"x\.jsonl:1: .*{key}"):
        task.score_recorded("answers", [line])


class Oracle:
    """Answers from the documents."""

    def __init__(self, name: str) -> None:
        from evals.api import Identity

        self.identity = Identity("oracle", "1", "0" * 64, "test", is_test_double=True)
        self.records = {s.id: s.metadata for s in task_of(name).samples()}
        self.task = name

    def load(self) -> None: ...
    def close(self) -> None: ...

    def answer(self, requests: list[AnswerRequest]) -> list[str]:
        assert all(len(r.images) in (1, 4) for r in requests)
        return [truth(self.task, self.records[r.sample_id]) for r in requests]


@every_task
def test_a_run_of_the_oracle(name, tmp_path) -> None:
    model = Oracle(name)
    assert isinstance(model, Answerer)
    run = evaluate(
        name, model, limit=12, output=tmp_path / "run", tracking__enabled=False, quiet=True, report=False
    )  # fmt: skip
    metrics = run.results["metrics"]
    headline = next(iter(metrics.values()))
    assert headline["value"] == (800 if name == "mme_stickers" else 1) and headline["n"] >= 12
    assert metrics["chance"]["value"] is not None and run.results["partial"]


def test_without_images_the_model_is_shown_nothing() -> None:
    from evals.models.blip3o import create_tiny

    seen = []

    class Pipeline:
        def ask_batch(self, images, questions, **_):
            seen.append(images)
            return ["yes"] * len(questions)

    sample = task_of("mme_stickers").samples()[0]
    request = AnswerRequest(sample.id, sample.prompt, 1, images=sample.images)
    for extra in ({}, {"without_images": True}):
        model = create_tiny("", ModelOptions(device="cpu", extra=extra))
        model._pipeline = Pipeline()
        assert model.answer([request]) == ["yes"]
    assert seen == [[[sample.images[0]]], [[]]]
