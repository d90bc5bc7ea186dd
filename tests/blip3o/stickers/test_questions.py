"""Questions: every answer is checked again from the masks and boxes or the words of the question."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from blip3o.stickers import CLASSES, COLORS, RELATIONS, SceneConfig, make_scene, render
from blip3o.stickers.captions import plural
from blip3o.stickers.questions import questions
from blip3o.stickers.splits import held_out

NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}
NAMES = "|".join(sorted(CLASSES, key=len, reverse=True))
PLURALS = {plural(c): c for c in CLASSES} | {c: c for c in CLASSES}
ANY = "|".join(sorted(PLURALS, key=len, reverse=True))


def _truth(scene, boxes, text: str):
    """Answer to a closed statement inside a question text, from the ground truth alone."""
    shown = Counter(s.class_name for s in scene.stickers)
    if m := re.fullmatch(
        rf"(?:Is there|Can you see|Does the picture show) an? ({NAMES})(?: in .*)?\?", text
    ):
        return m[1] in shown
    if m := re.fullmatch(rf"Are there exactly (\w+) ({ANY}) in the picture\?", text):
        return shown[PLURALS[m[2]]] == NUMBERS[m[1]]
    if m := re.fullmatch(rf"(?:Is|Are) the ({ANY}) ({'|'.join(COLORS)})\?", text):
        return {s.color for s in scene.stickers if s.class_name == PLURALS[m[1]]} == {m[2]}
    m = re.fullmatch(rf"Is the ({NAMES}) ({'|'.join(RELATIONS)}) the ({NAMES})\?", text)
    assert m, text
    return _relation(scene, boxes, m[1], m[3]) == m[2]


def _relation(scene, boxes, first: str, second: str) -> str:
    names = [s.class_name for s in scene.stickers]
    assert names.count(first) == names.count(second) == 1
    a, b = boxes[names.index(first)], boxes[names.index(second)]
    dx, dy = (a[0] + a[2] - b[0] - b[2]) / 2, (a[1] + a[3] - b[1] - b[3]) / 2
    if abs(dx) > abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


@pytest.mark.parametrize("level", ["easy", "full"])
def test_every_answer_is_true(level):
    config = SceneConfig.level(level)
    kinds: Counter[str] = Counter()
    for i in range(400):
        scene = make_scene("test", i, config)
        boxes = render(scene).boxes
        shown = Counter(s.class_name for s in scene.stickers)
        for q in questions(scene):
            kinds[q.kind] += 1
            answer = q.choices["ABCD".index(q.answer)] if q.kind == "choice" else q.answer
            if q.kind == "yes_no":
                assert _truth(scene, boxes, q.question) == (q.answer == "yes"), q
            elif q.aspect == "count":
                name = PLURALS[re.search(rf"How many ({ANY}) ", q.question)[1]]
                assert shown[name] == (NUMBERS.get(answer) or int(answer)), q
            elif q.aspect == "color":
                name = PLURALS[re.search(rf"the ({ANY})(?: have)?\?", q.question)[1]]
                assert {s.color for s in scene.stickers if s.class_name == name} == {answer}, q
            elif q.aspect == "position":
                first = re.search(rf"the ({NAMES})\b", q.question)[1]
                second = re.search(
                    rf"the ({NAMES})(?:\?)?$", answer if q.kind == "choice" else q.question
                )[1]
                assert _relation(scene, boxes, first, second) == answer.removesuffix(
                    f" the {second}"
                ), q
            else:
                right = [c for c in q.choices if re.sub("^an? ", "", c) in shown]
                assert right == [answer], q
    assert set(kinds) == {"yes_no", "count", "color", "position", "choice"}


def test_yes_no_questions_come_in_pairs_with_one_yes_and_one_no():
    config = SceneConfig.level("full")
    for i in range(100):
        pairs: dict[int, list[str]] = {}
        for q in questions(make_scene("val", i, config)):
            assert (q.pair is None) == (q.kind != "yes_no")
            if q.pair is not None:
                pairs.setdefault(q.pair, []).append(q.answer)
        assert pairs and all(sorted(answers) == ["no", "yes"] for answers in pairs.values())


def test_choices_are_four_different_texts_and_letters_are_balanced():
    config = SceneConfig.level("easy")
    letters: Counter[str] = Counter()
    for i in range(500):
        for q in questions(make_scene("val", i, config)):
            if q.kind == "choice":
                assert len(set(q.choices)) == 4
                letters[q.answer] += 1
            else:
                assert q.choices == ()
    total = sum(letters.values())
    assert all(letters[x] / total == pytest.approx(0.25, abs=0.04) for x in "ABCD")


def test_the_question_alone_does_not_give_the_answer():
    """The best constant answer per question text, with classes left out, stays near chance."""
    config = SceneConfig.level("easy")
    table: dict[tuple[str, str], dict[str, Counter[str]]] = {}
    for i in range(2500):
        for q in questions(make_scene("val", i, config)):
            text = re.sub(rf"\b({ANY})\b", "X", q.question)
            table.setdefault((q.kind, q.aspect), {}).setdefault(text, Counter())[q.answer] += 1
    limits = {"yes_no": 0.55, "count": 0.6, "color": 0.2, "position": 0.55, "choice": 0.35}
    for (kind, aspect), texts in table.items():
        best = sum(max(c.values()) for c in texts.values()) / sum(
            sum(c.values()) for c in texts.values()
        )
        # Most pairs stand side by side, so left and right are the likelier answers: 2 of 4.
        assert best <= limits[kind], (kind, aspect, best)


def test_training_questions_never_name_a_held_out_colour_of_a_class():
    config, taboo = SceneConfig.level("full"), held_out().class_colors
    for i in range(600):
        for q in questions(make_scene("train", i, config)):
            if q.aspect != "color":
                continue
            name = PLURALS[re.search(rf"the ({ANY})\b", q.question)[1]]
            words = f"{q.question} {q.answer} {' '.join(q.choices)}".replace(name, "")
            assert not [
                c for c in COLORS if (name, c) in taboo and re.search(rf"\b{c}\b", words)
            ], q


def test_seed_changes_the_wording_and_nothing_else_does():
    scene = make_scene("val", 4, SceneConfig.level("full"))
    assert questions(scene) == questions(scene)
    assert questions(scene, 1) != questions(scene, 2)
