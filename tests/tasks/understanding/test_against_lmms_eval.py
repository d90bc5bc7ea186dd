"""The seven scorers with `compat lmms-eval` against lmms-eval's own functions, on made-up documents and odd answers.

    pytest -m slow tests/tasks/understanding/test_against_lmms_eval.py                      # 300 documents a task
    BLIP3O_FUZZ_CASES=5000 pytest -m slow tests/tasks/understanding/test_against_lmms_eval.py

Skipped where lmms-eval is not installed: pip install "blip3o-eval[understanding]".
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evals.plugins.lookup import find_task
from evals.recorded import Field

CASES = int(os.environ.get("BLIP3O_FUZZ_CASES", "300"))
SHORT = "\nAnswer the question using a single word or phrase."
pytestmark = pytest.mark.slow

WORDS = (
    *"yes no Yes No YES. none nothing not know y n answer is (A) A B. C) D: (b) a E F option choice two ten 2".split(),
    *"2.50 1,000 1e5 -3 .5 3/4 50% dont isn't the an dog hot-dog it's so thus therefore = final nan inf".split(),
    *"答案是 정답은 B é 🙂 \u00a0 \ufeff ' \" , ? ! \\ / [ ] ... . ; 0 00 None ASSISTANT:".split(" "),
    "The answer is", "I choose", "correct answer is", "Red car", "don't know", "x = 3", "\t", "\n", "\n\n",
    "Failed to obtain answer via API", "<image 1>",
)  # fmt: skip


def text(draw: random.Random, most: int = 9) -> str:
    """An answer: words and marks, sometimes long, sometimes any characters at all."""
    kind = draw.random()
    if kind < 0.03:
        return ""
    if kind < 0.08:
        return "".join(
            chr(draw.choice((draw.randrange(32, 127), draw.randrange(0xA0, 0x2FF)))) for _ in range(draw.randrange(30))
        )
    if kind < 0.1:
        return " ".join(draw.choice(WORDS) for _ in range(300))
    return draw.choice((" ", "", " ", ", ", "\n")).join(draw.choice(WORDS) for _ in range(draw.randrange(1, most)))


def option(draw: random.Random) -> str:
    return draw.choice((draw.choice(WORDS), f"{draw.choice(WORDS)} {draw.choice(WORDS)}", str(draw.randrange(99))))


@pytest.fixture(autouse=True)
def quiet() -> Any:
    pytest.importorskip("lmms_eval")
    with contextlib.redirect_stdout(io.StringIO()):
        yield


def ours(task: str, cases: list[tuple[dict[str, Any], str]]) -> tuple[list[Any], Any]:
    lines = [
        Field({"n": n, "doc": copy.deepcopy(doc), "response": said}, f"line {n + 1}")
        for n, (doc, said) in enumerate(cases)
    ]
    *rows, total = find_task(task).score_recorded("answers", lines, "lmms-eval")  # type: ignore[attr-defined]
    return rows, total["aggregate"]["metrics"]


def made(seed: int, make: Callable[[random.Random, int], dict[str, Any]], count: int = CASES) -> list[Any]:
    draw = random.Random(seed)
    return [(make(draw, number), text(draw).strip()) for number in range(count)]


def test_mme() -> None:
    from lmms_eval.tasks.mme import utils

    kinds = [name for names in utils.eval_type_dict.values() for name in names]

    def doc(draw: random.Random, number: int) -> dict[str, Any]:
        return {
            "question_id": f"{number // 2}.png", "category": kinds[number // 2 % len(kinds)],
            "question": f"{text(draw)} Please answer yes or no.", "answer": draw.choice(("Yes", "No", "yes.", " NO ")),
        }  # fmt: skip

    cases = made(1, doc, CASES // 2 * 2)
    rows, metrics = ours("mme", cases)
    totals: dict[str, list[Any]] = {}
    for row, (one, said) in zip(rows, cases, strict=True):
        [(metric, wanted)] = utils.mme_process_results(one, [said]).items()
        totals.setdefault(metric, []).append(wanted)
        assert row["result"] == {"metric": metric, **wanted, "parsed": utils.parse_pred_ans(said)}, said
        assert row["prompt"] == utils.mme_doc_to_text(one, {"pre_prompt": "", "post_prompt": SHORT})
    assert metrics == pytest.approx({name: utils.mme_aggregate_results(all_) for name, all_ in totals.items()})


def test_vqav2() -> None:
    from lmms_eval.tasks.vqav2 import utils

    def doc(draw: random.Random, number: int) -> dict[str, Any]:
        pool = [text(draw, 4) for _ in range(draw.randrange(1, 4))]
        answers = [
            {
                "answer": draw.choice(pool),
                "answer_confidence": draw.choice(("yes", "maybe")),
                "answer_id": draw.randrange(1, 4),
            }
            for _ in range(draw.choice((1, 2, 3, 10, 10, 10)))
        ]
        return {"question_id": number, "image_id": number // 3, "question": text(draw), "answers": answers}

    draw = random.Random(2)
    cases = [(one, draw.choice((said, draw.choice(one["answers"])["answer"].strip()))) for one, said in made(2, doc)]
    rows, metrics = ours("vqav2", cases)
    values = []
    for row, (one, said) in zip(rows, cases, strict=True):
        wanted = utils.vqav2_process_results(copy.deepcopy(one), [said])
        values.append(wanted["exact_match"])
        assert row["result"] == {
            "exact_match": wanted["exact_match"], "normalised_response": wanted["submission"]["answer"],
        }, said  # fmt: skip
        assert row["prompt"] == one["question"] + SHORT
    assert metrics["exact_match"] == pytest.approx(sum(values) / len(values))


def test_textvqa() -> None:
    from lmms_eval.tasks.textvqa import utils

    def doc(draw: random.Random, number: int) -> dict[str, Any]:
        pool = [text(draw, 4) for _ in range(draw.randrange(1, 4))]
        answers = [draw.choice(pool) for _ in range(draw.choice((1, 2, 10, 10, 10)))]
        return {"question_id": number, "question": text(draw), "answers": answers}

    draw = random.Random(3)
    cases = [(one, draw.choice((said, draw.choice(one["answers"]).strip()))) for one, said in made(3, doc)]
    rows, metrics = ours("textvqa", cases)
    values = []
    for row, (one, said) in zip(rows, cases, strict=True):
        wanted = utils.textvqa_process_results(copy.deepcopy(one), [said])
        values.append(wanted["exact_match"])
        assert row["result"] == {
            "exact_match": wanted["exact_match"], "normalised_response": wanted["submission"]["answer"],
        }, said  # fmt: skip
        assert row["prompt"] == utils.textvqa_doc_to_text(one, {"pre_prompt": "", "post_prompt": SHORT})
    assert metrics["exact_match"] == pytest.approx(sum(values) / len(values))


def test_mmmu() -> None:
    from lmms_eval.tasks.mmmu import utils

    def doc(draw: random.Random, number: int) -> dict[str, Any]:
        subject = draw.choice(("Art", "Art_Theory", "Math", "Public_Health"))
        options = [option(draw) for _ in range(draw.randrange(2, 8))]
        is_choice = draw.random() < 0.6
        gold: Any = (
            draw.choice("ABCD") if is_choice else draw.choice((option(draw), [option(draw), "3"], "['3', 'three']"))
        )
        return {
            "id": f"validation_{subject}_{number}", "question": f"{text(draw)} <image 1>", "options": str(options),
            "question_type": "multiple-choice" if is_choice else "open", "answer": gold,
        }  # fmt: skip

    cases = made(4, doc)
    rows, metrics = ours("mmmu", cases)
    random.seed(0)
    found = []
    for row, (one, said) in zip(rows, cases, strict=True):
        wanted = utils.mmmu_process_results(one, [said])["mmmu_acc"]
        found.append(wanted)
        judged, _ = utils.evaluate_mmmu([wanted])
        assert row["result"]["correct"] == (judged[one["id"]] == "Correct"), (one, said)
        parsed = wanted["parsed_pred"][0]
        if one["question_type"] == "multiple-choice":
            assert row["result"]["parsed_pred"] == parsed, said
        else:
            assert same_candidates(row["result"]["parsed_pred"], parsed), said
    assert metrics["mmmu_acc"] == pytest.approx(utils.mmmu_aggregate_results(found), abs=1e-5)


def same_candidates(mine: list[Any], theirs: list[Any]) -> bool:
    def plain(one: Any) -> str:
        return (
            one["non_finite"] if isinstance(one, dict) else repr(float(one)) if not isinstance(one, str) else f"'{one}"
        )

    return {plain(one) for one in mine} == {plain(one) for one in theirs}


def test_realworldqa() -> None:
    from lmms_eval.tasks.realworldqa import utils

    def doc(draw: random.Random, number: int) -> dict[str, Any]:
        answer = draw.choice(("A", "B", "c", " D ", option(draw), "Downhill", "2"))
        return {"question": text(draw), "answer": answer}

    cases = made(5, doc)
    rows, metrics = ours("realworldqa", cases)
    values = []
    for row, (one, said) in zip(rows, cases, strict=True):
        wanted = utils.realworldqa_process_results(one, [said])["exact_match"]
        values.append(wanted)
        assert row["result"]["exact_match"] == wanted, (one, said)
        assert row["prompt"] == utils.realworldqa_doc_to_text(one, {"pre_prompt": "", "post_prompt": ""})
    assert metrics["exact_match"] == pytest.approx(sum(values) / len(values))


def test_seedbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmms_eval.tasks.seedbench import utils

    monkeypatch.chdir(tmp_path)  # it writes a submission into the current folder

    def doc(draw: random.Random, number: int) -> dict[str, Any]:
        return {
            "question_id": str(number), "question": text(draw), "answer": draw.choice("ABCDabcd"),
            "data_type": draw.choice(("image", "video")), **{f"choice_{c}": option(draw) for c in "abcd"},
        }  # fmt: skip

    cases = made(6, doc)
    rows, metrics = ours("seedbench", cases)
    totals: dict[str, list[Any]] = {}
    for row, (one, said) in zip(rows, cases, strict=True):
        wanted = utils.seed_process_result(one, [said])
        for metric, value in wanted.items():
            totals.setdefault(metric, []).append(value)
        assert row["result"]["metrics"] == sorted(wanted)
        assert row["result"]["pred"] == wanted["seed_all"]["pred"], said
        assert row["result"]["correct"] == bool(utils.seed_aggregation_result([wanted["seed_all"]]))
        assert row["prompt"] == utils.seed_doc_to_text(one)
    assert metrics == pytest.approx({name: utils.seed_aggregation_result(all_) for name, all_ in totals.items()})


def test_mmbench() -> None:
    from lmms_eval.tasks.mmbench import en_utils

    def doc(draw: random.Random, number: int) -> dict[str, Any]:
        main, copy_ = divmod(number, 3)
        options = {c: option(draw) for c in "ABCD"}
        for letter in "CD"[draw.randrange(3) :]:
            options[letter] = "nan"
        return {
            "index": main + 1_000_000 * copy_, "question": text(draw),
            "hint": draw.choice(("nan", "nan", text(draw) or "h")), "answer": draw.choice("ABCD"), **options,
            "category": "c", "source": "s", "split": "dev", "L2-category": "l",
        }  # fmt: skip

    cases = made(7, doc)
    rows, _ = ours("mmbench", cases)
    evaluator = en_utils.mmbench_evaluator
    for row, (one, said) in zip(rows, cases, strict=True):
        choices = evaluator.build_choices(one)
        assert (row["result"]["rule_letter"] or False) == (evaluator.can_infer(said, choices) or False), (one, said)
        wanted = en_utils.mmbench_doc_to_text(
            one, {"pre_prompt": "", "post_prompt": "\nAnswer with the option's letter from the given choices directly."}
        )
        assert row["prompt"] == wanted
    step = 30  # whole questions with their copies
    for start in range(0, len(cases) // step * step, step):
        part = cases[start : start + step]
        _, metrics = ours("mmbench", part)
        results = [en_utils.mmbench_process_results(one, [said])["gpt_eval_score"] for one, said in part]
        overall, *_ = evaluator.eval_result(results, eval_method="static")
        assert metrics["gpt_eval_score"] == pytest.approx(overall * 100)
