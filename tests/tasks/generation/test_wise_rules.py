"""WISE's rules: texts worked out by hand, closed forms of the overall, and properties over random texts."""

from __future__ import annotations

import itertools
import random

import pytest

from evals.api import Score, ScoreRow
from tasks.generation.wise_metrics import Overall, WeightedMean
from tasks.generation.wise_rules import (
    LEGACY,
    NUM_PROMPTS,
    VERIFIED,
    read_one,
    read_three,
    weighted,
    without_thoughts,
)

THREE = ("consistency", "realism", "aesthetic_quality")


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("Consistency: 2\nRealism: 1\nAesthetic Quality: 0", (2, 1, 0)),
        ("**Consistency**: 2\n**Realism** 1\n*Aesthetic Quality*:0", (2, 1, 0)),
        ("consistency\uff1a2\nREALISM \uff1a 1\nAesthetic Quality: 0", (2, 1, 0)),
        ("Consistency: 0. Wait.\nRealism: 1\nAesthetic Quality: 0\nConsistency: 2", (2, 1, 0)),  # the later counts
        ("Consistency: 2/2, Realism: 1.5, Aesthetic Quality: 0", (2, 1, 0)),  # one digit, whatever follows
        ("2\n1\n0", (2, 1, 0)),
        ("Marks:\r\n 2 \r\n\r\n\t1\r\n0\r\n2", (2, 1, 0)),  # the first three
        ("Aesthetic Quality: 7\nRealism: 1\nConsistency: 2", (2, 1, 7)),  # read, and refused by a run
    ],
)
def test_three_marks_are_read(text: str, marks: tuple[int, ...]) -> None:
    assert read_three(text) == dict(zip(THREE, marks, strict=True))


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ("", {}),
        ("2\n1", {}),  # two lines are not three
        ("2\n1\n3", {}),
        ("Consistency: 2\n1\n0\n1", {"consistency": 2}),  # a named mark rules bare lines out
        ("**Consistency:** 2", {}),  # asterisks stand before the colon or nowhere
        ("Consistency:: 2", {}),
        ("Aesthetic  Quality: 2", {}),
    ],
)
def test_what_is_not_there_is_not_read(text: str, marks: dict[str, int]) -> None:
    assert read_three(text) == marks and LEGACY.problem(marks) is not None


@pytest.mark.parametrize(
    ("text", "bit"),
    [
        ("Score: 1", 1),
        ("score 0", 0),
        ("**Score**\uff1a 1", 1),
        ("The WiScore: 1.", 1),
        ("Score: 0\nScore: 1", 0),  # the first counts here
        ("Score: 2, so the score: 1", 1),
        ("Because it is right:\n 1 \n", 1),
        ("Score: 10", None),
        ("1\n1", None),  # two bare lines
        ("**Score:** 1", None),
        ("", None),
    ],
)
def test_the_bit_is_read(text: str, bit: int | None) -> None:
    assert read_one(text) == ({} if bit is None else {"score": bit})


def test_thoughts_are_no_verdict() -> None:
    text = "<think>\nScore: 0?\n</think>\n\nScore: 1"
    assert read_one(text) == {"score": 0} and read_one(without_thoughts(text)) == {"score": 1}
    assert without_thoughts("Score: 0?</think> Score: 1 ") == "Score: 0?Score: 1"


def test_marks_above_the_scale_are_no_verdict() -> None:
    marks = {"consistency": 2, "realism": 7, "aesthetic_quality": 1}
    assert LEGACY.problem(marks) == "realism 7 is above 2"
    assert LEGACY.problem({"realism": 1}) == "no mark for consistency, aesthetic quality"
    assert LEGACY.problem(dict.fromkeys(THREE, 2)) is None is VERIFIED.problem({"score": 0})


def test_all_27_pictures_have_their_value() -> None:
    for marks in itertools.product(range(3), repeat=3):
        c, r, a = marks
        value = LEGACY.value(dict(zip(THREE, marks, strict=True)))
        assert value == pytest.approx((0.7 * c + 0.2 * r + 0.1 * a) / 2, abs=1e-15)
        assert 0 <= value <= 1
    assert LEGACY.value(dict.fromkeys(THREE, 2)) == 1.0  # exactly: reports ask for a full mark


@pytest.mark.parametrize(
    ("edition", "sizes"),
    [(LEGACY, (400, 167, 133, 100, 100, 100)), (VERIFIED, (400, 120, 120, 120, 120, 120))],
)
def test_groups_cover_all_prompts_and_weigh_what_they_hold(edition, sizes) -> None:
    found = [edition.group_of(n) for n in range(1, NUM_PROMPTS + 1)]
    assert tuple(found.count(g.name) for g in edition.groups) == sizes
    assert tuple(g.weight * NUM_PROMPTS for g in edition.groups) == pytest.approx(sizes)
    assert edition.group_of(0) is edition.group_of(1001) is None


def test_the_boundaries_are_those_of_each_edition() -> None:
    names = [
        "culture", "time", "time", "space", "space", "biology", "biology", "physics", "physics", "chemistry",
    ]  # fmt: skip
    assert [LEGACY.group_of(n) for n in (400, 401, 567, 568, 700, 701, 800, 801, 900, 901)] == names
    assert [VERIFIED.group_of(n) for n in (400, 401, 520, 521, 640, 641, 760, 761, 880, 881)] == names


def rows_of(edition, value_of, ids=range(1, NUM_PROMPTS + 1)) -> list[ScoreRow]:
    return [ScoreRow(str(n), 0, edition.group_of(n), value_of(n)) for n in ids]


@pytest.mark.parametrize("edition", [LEGACY, VERIFIED])
def test_a_complete_overall_is_the_plain_mean_over_the_prompts(edition) -> None:
    rng = random.Random(0)
    values = {n: rng.randrange(21) / 20 for n in range(1, NUM_PROMPTS + 1)}
    figure = Overall("overall", edition.groups).compute(rows_of(edition, lambda n: Score(values[n])))
    assert figure.value == pytest.approx(sum(values.values()) / NUM_PROMPTS, abs=1e-12)
    assert figure.n == figure.clusters == NUM_PROMPTS and figure.ci95[0] < figure.value < figure.ci95[1]


def test_groups_of_other_sizes_weigh_the_same() -> None:
    """Culture right, the rest wrong: 0.4, however many prompts of each were taken."""
    for ids in ([1, 401, 568, 701, 801, 901], [1, 2, 3, 401, 568, 569, 701, 801, 901]):
        rows = rows_of(LEGACY, lambda n: Score(float(n <= 400)), ids)
        figure = Overall("overall", LEGACY.groups).compute(rows)
        assert figure.value == pytest.approx(0.4) and 0 <= figure.ci95[0] < 0.4 < figure.ci95[1] <= 1
        terms = Overall("overall", LEGACY.groups).terms(rows)
        pairs = list(zip(terms.strata, terms.values, strict=True))
        parts = [[value for name, value in pairs if name == group.name] for group in LEGACY.groups]
        mean = sum(sum(part) / len(part) for part in parts) / 6
        assert terms.scale * mean == pytest.approx(0.4)  # what `compare` averages


def test_a_prompt_without_a_score_takes_the_overall_away_and_leaves_the_rest() -> None:
    rows = rows_of(LEGACY, lambda n: Score.unscored("garbled") if n in (17, 930) else Score(0.5))
    figure = Overall("overall", LEGACY.groups).compute(rows)
    assert figure.value is figure.ci95 is None and figure.unscored == 2
    assert figure.note == "not given: 2 of 1,000 pictures have no score (prompts 17, 930)"
    assert Overall("overall", LEGACY.groups).terms(rows) is None
    rest = WeightedMean("overall_of_scored", LEGACY.groups).compute(rows)
    assert rest.value == pytest.approx(0.5) and (rest.n, rest.unscored) == (998, 2)


def test_prompts_that_the_files_lack_take_the_overall_away() -> None:
    rows = rows_of(LEGACY, lambda n: Score(1.0), range(1, NUM_PROMPTS))
    figure = Overall("overall", LEGACY.groups, missing=lambda: (1000,)).compute(rows)
    assert figure.value is None and figure.note == "not given: the files hold 999 of the 1,000 prompts (without 1000)"
    only_culture = [row for row in rows if row.group == "culture"]
    figure = Overall("overall", LEGACY.groups).compute(only_culture)
    assert figure.note == "not given: no scores for time, space, biology, physics, chemistry"
    assert Overall("overall", LEGACY.groups).compute([]).value is None


def test_the_interval_covers_the_truth_at_its_level() -> None:
    """Sixty prompts of a run with --limit, ten a group, whose groups differ: nominal 95 %."""
    rng = random.Random(1)
    truth = dict(zip((g.name for g in VERIFIED.groups), (0.7, 0.5, 0.3, 0.4, 0.2, 0.6), strict=True))
    ids = [n for g in VERIFIED.groups for n in range(g.first, g.first + 10)]
    aim, metric, hits = weighted(VERIFIED.groups, truth), WeightedMean("x", VERIFIED.groups), 0
    for _ in range(200):
        rows = rows_of(VERIFIED, lambda n: Score(float(rng.random() < truth[VERIFIED.group_of(n)])), ids)
        lo, hi = metric.compute(rows).ci95
        hits += lo <= aim <= hi
    assert 0.9 <= hits / 200
