"""The task: its files, runs against a local endpoint that also misbehaves, and recorded texts."""

from __future__ import annotations

import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

import evals
from evals.api import InstructedJudge, ModelOptions, Task
from evals.cli.main import main
from evals.errors import (
    ConfigMismatchError,
    EvalError,
    InputError,
    MissingRequirementError,
    UsageError,
)
from evals.judges import vlm, vlm_endpoint
from evals.judges.dummy import DummyJudge
from evals.judges.instruction import filled, read_instruction
from evals.models.dummy import DummyModel
from evals.phases.plan import spread_evenly
from evals.rescoring import rescore
from tasks.generation import wise_wording
from tasks.generation.wise import Wise, WiseVerified
from tasks.generation.wise_data import STEMS, read
from tasks.generation.wise_rules import LEGACY, VERIFIED

CATEGORIES = ("Cultural knowledge", "time", "Space", "Biology", "Physical Knowledge", "Chemistry")


def entry(edition: Any, number: int, **changes: Any) -> dict[str, Any]:
    """A prompt in upstream's form, made up."""
    categories = dict(zip((g.name for g in edition.groups), CATEGORIES, strict=True))
    category = categories.get(edition.group_of(number), "?")
    texts = {"Prompt": f"riddle {number}", "Explanation": f"answer {number}", "Category": category, "Subcategory": ""}
    return {**texts, "prompt_id": number, **changes}


def write_files(folder: Path, edition: Any, suffix: str = ".json") -> Path:
    """The 1,000 prompts in upstream's three files."""
    folder.mkdir()
    ends = [0, 400, edition.groups[2].last, 1000]
    for stem, first, last in zip(STEMS, ends, ends[1:], strict=False):
        (folder / (stem + suffix)).write_text(json.dumps([entry(edition, n) for n in range(first + 1, last + 1)]))
    return folder


def write_lines(path: Path, rows: Any) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_files(tmp_path / "data", LEGACY)


def right(number: int) -> str:
    return f"Consistency: {number % 3}\nRealism: 1\nAesthetic Quality: 2"


class Server(ThreadingHTTPServer):
    """An endpoint whose text is decided by ``says(number of the prompt, how often it was asked)``."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.says: Any = lambda number, times: right(number)
        self.bodies: list[dict[str, Any]] = []
        self.asked: dict[int, int] = {}
        self.lock = threading.Lock()

    def handle_error(self, *_: Any) -> None:
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number = int(re.search(r"riddle (\d+)", body["messages"][0]["content"][1]["text"])[1])
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.asked[number] = self.server.asked.get(number, 0) + 1
            said = self.server.says(number, self.server.asked[number])
        status, answer = said if isinstance(said, tuple) else (200, {"choices": [{"message": {"content": said}}]})
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args: Any) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_address[1]}/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test-0123456789abcdef")
    yield server
    server.shutdown()
    server.server_close()


def run(data: Path, folder: Path, judge: Any = "openai-vlm:m", task: str = "wise", args: Any = None, **more: Any):
    args = {"max_wait_s": 0.05, **(args or {})} if judge == "openai-vlm:m" else {}
    more = {"report": False, **more}
    return evals.evaluate(
        task, DummyModel(), judge=judge, output=folder, data=str(data), quiet=True, limit=12, max_errors=1.0,
        tracking__enabled=False, judge__args=args, **more,
    )  # fmt: skip


def scores(folder: Path) -> dict[int, dict[str, Any]]:
    rows = map(json.loads, (folder / "scores.jsonl").read_text().splitlines())
    return {int(row["sample_id"]): row for row in rows}


def taken(data: Path) -> list[int]:
    task = Wise(data)
    return [int(sample.id) for sample in spread_evenly(task.samples(), task.groups, 12)]


# -- the user's files -------------------------------------------------------------------------


def test_upstreams_files_are_read_with_their_groups(data: Path, tmp_path: Path) -> None:
    task = Wise(data)
    samples = task.samples()
    assert isinstance(task, Task) and [s.id for s in samples] == [str(n) for n in range(1, 1001)]
    assert (samples[400].number, samples[400].group, samples[400].prompt) == (400, "time", "riddle 401")
    (data / "cultural_common_sense_rewrite.json").write_text("[]")  # upstream's rewritten prompts lie beside them
    lines = write_lines(tmp_path / "all.jsonl", (entry(LEGACY, n) for n in range(1000, 0, -1)))
    assert Wise(data).digest() == Wise(lines).digest() == task.digest()  # whatever the form and the order
    write_lines(lines, (entry(LEGACY, n, Explanation="x") for n in range(1, 1001)))
    assert Wise(lines).digest() != task.digest()


def test_each_edition_has_files_of_its_own(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_files(tmp_path / "verified", VERIFIED, "_verified.json")
    for task, place in ((WiseVerified, data), (Wise, folder)):
        with pytest.raises(InputError, match=r"entry \d+: Category is .* prompts of another edition, try --task wise"):
            task(place).samples()
    (folder / "merge.json").write_text("[]")  # upstream's copy of all three
    assert len(WiseVerified(folder).samples()) == 1000
    monkeypatch.delenv("BLIP3O_EVAL_DATA", raising=False)
    with pytest.raises(MissingRequirementError, match="git clone .*--data WISE/WISE_legacy/data, or put"):
        Wise().samples()
    with pytest.raises(InputError, match="no such file or folder; --data takes upstream's folder data_verified"):
        WiseVerified(tmp_path / "no").samples()
    with pytest.raises(InputError, match="holds neither cultural_common_sense.json nor other"):
        Wise(tmp_path).samples()
    monkeypatch.setenv("BLIP3O_EVAL_DATA", str(tmp_path))
    data.rename(tmp_path / "wise")
    assert len(Wise().samples()) == 1000


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([], "must be a list of entries with prompt_id, Prompt"),
        ([1], "entry 1: the line must be an object"),
        ([entry(LEGACY, 1), {"prompt_id": 2}], "entry 2: Prompt is missing"),
        ([entry(LEGACY, 1, prompt_id="1")], 'entry 1: prompt_id must be a whole number, got "1"'),
        ([entry(LEGACY, 1001)], "entry 1: prompt_id must be from 1 to 1000, got 1001"),
        ([entry(LEGACY, 1), entry(LEGACY, 1)], "entry 2: prompt_id 1 stands twice, first in .*entry 1: keep one"),
        ([entry(LEGACY, 1, Prompt=" ")], "Prompt must be a text that is not empty"),
        ([entry(LEGACY, 1, Explanation=None)], "Explanation must be a string, got null"),
        ([entry(LEGACY, 530, Category="Space")], "prompt 530 of task 'wise' belongs to time.*--task wise_verified"),
    ],
)
def test_what_is_no_prompt_is_named_with_file_and_entry(tmp_path: Path, rows: Any, problem: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(json.dumps(rows))
    with pytest.raises(InputError, match=rf"some\.json.*{problem}"):
        read(path, LEGACY)
    path.write_text("[{]")
    with pytest.raises(InputError, match=r"some\.json: not JSON: .*; JSON lines end in \.jsonl"):
        read(path, LEGACY)


# -- the judge --------------------------------------------------------------------------------


def test_a_run_has_an_overall_the_groups_and_the_marks(data: Path, server: Server, tmp_path: Path) -> None:
    made = run(data, tmp_path / "run", report=True)
    figures, found = made.results["metrics"], scores(tmp_path / "run")
    assert list(figures) == ["overall", *Wise().groups, *LEGACY.marks, "overall_of_scored"]
    assert list(found) == taken(data) and made.results["partial"]
    for number, row in found.items():
        assert row["value"] == pytest.approx((0.7 * (number % 3) + 0.2 + 0.2) / 2)
        assert row["details"]["scores"] == {"consistency": number % 3, "realism": 1, "aesthetic_quality": 2}
        assert row["details"]["expected"] == f"answer {number}" and row["answer"] == right(number)
    means = [[r["value"] for n, r in found.items() if g.first <= n <= g.last] for g in LEGACY.groups]
    overall = sum(g.weight * sum(m) / len(m) for g, m in zip(LEGACY.groups, means, strict=True))
    assert figures["overall"]["value"] == pytest.approx(overall)
    assert figures["realism"]["value"] == 0.5 and figures["aesthetic_quality"]["value"] == 1
    body = server.bodies[0]
    assert (body["temperature"], body["max_tokens"], len(server.bodies)) == (0, 2000, 12)
    picture, text = body["messages"][0]["content"]
    number = re.search(r"riddle (\d+)", text["text"])[1]
    assert text["text"] == filled(wise_wording.LEGACY, f"riddle {number}", f"answer {number}")
    (warning,) = [w for w in made.results["warnings"] if "wording" in w]
    assert "blip3o-eval's own wording of the instruction (sha256 34a892c4bb29)" in warning
    page = (tmp_path / "run" / "report.html").read_text()
    assert "own wording of the instruction" in page and "Published figures" in page and "BAGEL" in page


def test_the_verified_edition_asks_for_one_bit(server: Server, tmp_path: Path) -> None:
    server.says = lambda number, times: f"<think>Score: 0?</think>\nScore: {int(number > 400)}"
    made = run(write_files(tmp_path / "v", VERIFIED), tmp_path / "run", task="wise_verified")
    figures = made.results["metrics"]
    assert list(figures) == ["overall", *Wise().groups, "overall_of_scored"]
    assert figures["overall"]["value"] == pytest.approx(0.6) and figures["culture"]["value"] == 0
    assert server.bodies[0]["max_tokens"] == 500
    assert {row["reason"] for row in scores(tmp_path / "run").values()} == {"", "rejected by the judge"}


def test_garbled_texts_are_asked_for_three_times_and_then_not_scored(
    data: Path, server: Server, tmp_path: Path
) -> None:
    late, never, above, empty, refused, *_ = taken(data)[::2]
    refusal = (400, {"error": {"message": "picture refused", "code": "content_policy"}})
    said = {never: "Consistency: 2\nRealism: 1", above: right(1).replace("Realism: 1", "Realism: 7"), empty: ""}
    said[refused] = refusal
    server.says = lambda n, times: "No." if n == late and times < 3 else said.get(n, right(n))
    made = run(data, tmp_path / "run")
    found, overall = scores(tmp_path / "run"), made.results["metrics"]["overall"]
    assert [server.asked[n] for n in (late, never, above, empty, refused)] == [3, 3, 3, 3, 1]
    assert found[late]["value"] is not None and found[late]["details"]["tries"] == 3
    assert "no mark for aesthetic quality in 'Consistency: 2" in found[never]["unscored"]
    assert "realism 7 is above 2" in found[above]["unscored"] and "holds no text" in found[empty]["unscored"]
    assert "picture refused" in found[refused]["unscored"]
    assert made.results["counts"]["unscored"] == made.results["counts"]["failed"] == 4
    names = f"{never}, {above}, {empty}, {refused}"
    assert overall["value"] is None
    assert overall["note"] == f"not given: 4 of 12 pictures have no score (prompts {names})"
    assert made.results["metrics"]["overall_of_scored"]["n"] == 8
    assert "4 of 12 pictures needed more than one try for a text that can be read" in made.results["warnings"]


def test_a_run_that_the_endpoint_ended_goes_on_where_it_was(data: Path, server: Server, tmp_path: Path) -> None:
    sizes = {"batch_size": 2, "judge__batch_size": 2, "args": {"workers": 1}}
    whole = run(data, tmp_path / "whole", **sizes)
    quota = (429, {"error": {"message": "no more", "code": "insufficient_quota"}})
    server.says = lambda number, times: quota if number in taken(data)[7:] else right(number)
    with pytest.raises(EvalError, match="quota is used up"):
        run(data, tmp_path / "run", **sizes)
    before, asked = len(scores(tmp_path / "run")), len(server.bodies)
    server.says = lambda number, times: right(number)
    made = run(data, tmp_path / "run", **sizes)
    assert 0 < before and len(server.bodies) - asked == 12 - before  # what was judged is kept
    assert made.results["metrics"] == whole.results["metrics"]
    assert len({(tmp_path / name / "scores.jsonl").read_bytes() for name in ("whole", "run")}) == 1


def test_another_instruction_is_another_run(data: Path, server: Server, tmp_path: Path) -> None:
    own, folder = tmp_path / "own.txt", tmp_path / "run"
    own.write_text("Mark it. Asked for: {prompt}; meant: {explanation}. {prompt}")
    made = run(data, folder, args={"instruction": str(own)})
    number, row = next(iter(scores(folder).items()))
    text = f"Mark it. Asked for: riddle {number}; meant: answer {number}. riddle {number}"
    assert text in {body["messages"][0]["content"][1]["text"] for body in server.bodies}
    digest = made.manifest["judge"]["settings"]["instruction_sha256"]
    assert row["details"]["instruction_sha256"] == digest == hashlib.sha256(own.read_bytes()).hexdigest()
    assert any(f"the user's instruction (sha256 {digest[:12]})" in w for w in made.results["warnings"])
    with pytest.raises(ConfigMismatchError, match=r"judge\.instruction_sha256: recorded .*, wanted null"):
        run(data, folder)
    changed = write_lines(tmp_path / "x.jsonl", (entry(LEGACY, n, Explanation="x") for n in range(1, 1001)))
    with pytest.raises(ConfigMismatchError, match=r"task\.prompts_sha256"):
        run(changed, folder, args={"instruction": str(own)})
    same = rescore(folder, settings={"judge": {"args": {}}}, output=tmp_path / "again", quiet=True, report=False)
    assert len(server.bodies) == 24  # the same pictures, judged in our wording; the server reads neither
    assert "instruction_sha256" not in same.run.manifest["judge"]["settings"]
    assert same.run.results["metrics"]["overall"] == made.results["metrics"]["overall"]


def test_another_default_wording_needs_another_version() -> None:
    digests = {task.name: hashlib.sha256(task.wording.encode()).hexdigest()[:12] for task in (Wise, WiseVerified)}
    assert (Wise.version, digests) == ("1", {"wise": "34a892c4bb29", "wise_verified": "df5ef21ee3e3"})


def test_instructions_are_checked_before_anything_is_made(tmp_path: Path, server: Server) -> None:
    path = tmp_path / "own.txt"
    for text, problem in ((b"Look at {prompt}", "has no {explanation};"), (b"\xff\xfe", "cannot be read as UTF-8")):
        path.write_bytes(text)
        for create, spec in ((vlm_endpoint.create, "m"), (vlm.create, "dummy")):
            with pytest.raises(InputError, match=problem):
                create(spec, ModelOptions(extra={"instruction": str(path)}))
    with pytest.raises(UsageError, match=r"judge\.args\.instruction = 3: give the path"):
        read_instruction(3)
    assert filled("{prompt} {explanation}", "{explanation}", "{prompt}") == "{explanation} {prompt}"


def test_models_of_this_machine_can_judge_and_judges_without_words_cannot(data: Path, tmp_path: Path) -> None:
    class Fake(DummyModel):
        def answer(self, requests: Any) -> Any:
            assert {r.max_new_tokens for r in requests} == {2000}
            return ["2\n2\n2" for _ in requests]

    judge = vlm.VlmJudge(Fake(), "fake")
    assert isinstance(judge, InstructedJudge) and isinstance(DummyJudge(), InstructedJudge)
    assert run(data, tmp_path / "run", judge=judge).results["metrics"]["overall"]["value"] == pytest.approx(1)
    with pytest.raises(UsageError, match="'stickers' follows no instruction and answers in no free text, which task"):
        run(data, tmp_path / "no", judge="stickers")


# -- what is there already --------------------------------------------------------------------


def score(kind: str, path: Path, *more: Any, task: str = "wise") -> tuple[Any, list[Any]]:
    words = ["score", "--task", task, f"--{kind}", path, "--json", *more]
    result = CliRunner().invoke(main, list(map(str, words)))
    return result, [json.loads(line) for line in result.stdout.splitlines()] if result.exit_code == 0 else []


def test_a_folder_of_pictures_in_wises_layout_is_scored(data: Path, server: Server, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in taken(data):
        Image.new("RGB", (16, 16), (number % 256, 0, 0)).save(pictures / f"{number}.png")
    more = ("--data", data, "--judge", "openai-vlm:m", "--limit", 12, "--no-track", "-q", "--output")
    result, _ = score("images", pictures, *more, tmp_path / "run")
    assert result.exit_code == 0 and len(scores(tmp_path / "run")) == 12 == len(server.bodies), result.output
    next(pictures.iterdir()).unlink()
    result, _ = score("images", pictures, *more, tmp_path / "gap")
    results = json.loads((tmp_path / "gap" / "results.json").read_text())
    assert result.exit_code == 1 and results["metrics"]["overall"]["value"] is None


def test_recorded_texts_are_scored_line_by_line(tmp_path: Path) -> None:
    rows = [
        {"prompt_id": 3, "response": "Consistency: 2\nRealism: 1\nAesthetic Quality: 0"},
        {"id": "b", "response": "Realism: 1", "value": 5},
        {"prompt_id": 401, "evaluation": "2\n2\n2"},  # upstream's key
        {"id": "c", "response": "Consistency: 2 Realism: 7 Aesthetic Quality: 2"},  # as upstream counts it
    ]
    result, found = score("answers", write_lines(tmp_path / "l", rows))
    full = {"consistency": 2, "realism": 2, "aesthetic_quality": 2}
    assert found == [
        {"id": 3, "scores": {"consistency": 2, "realism": 1, "aesthetic_quality": 0}, "value": 0.8},
        {"id": "b", "scores": {"realism": 1}, "value": None, "reason": "no mark for consistency, aesthetic quality"},
        {"id": 401, "scores": full, "value": 1.0},
        {"id": "c", "scores": {**full, "realism": 7}, "value": 1.5},
    ]
    assert "no overall: 998 of the 1,000 prompts have no score: 1, 2, 4, 5, 6 ..." in result.stderr
    whole = write_lines(tmp_path / "l", ({"id": str(n), "response": f"Score: {int(n > 400)}"} for n in range(1, 1001)))
    result, found = score("answers", whole, task="wise_verified")
    assert found[0]["value"] == 0 and "overall 0.6000" in result.stderr and "culture 0.0000 (n 400)" in result.stderr


def test_upstreams_score_files_give_its_figures(tmp_path: Path) -> None:
    marks = {"Subcategory": "x", "consistency": 2.0, "realism": 0.0, "aesthetic_quality": 0.0}
    rows = [{"prompt_id": n, **marks} for n in range(1, 1001)]
    _, (whole,) = score("results", write_lines(tmp_path / "l", rows))
    assert whole["overall"] == pytest.approx(0.7) and whole["groups"]["time"] == {"mean": 0.7, "n": 167}
    _, (part,) = score("results", write_lines(tmp_path / "l", rows[:-1]))
    assert part["overall"] is None and part["reason"] == "1 of the 1,000 prompts have no score: 1000"


@pytest.mark.parametrize(
    ("kind", "row", "problem"),
    [
        ("answers", {"response": "x"}, "l:1: prompt_id is missing"),
        ("answers", {"id": 1, "response": 2}, "response must be a string, got 2"),
        ("answers", {"id": [], "response": "x"}, "id must be a text or a whole number"),
        ("results", {"prompt_id": 0, "consistency": 1, "realism": 1, "aesthetic_quality": 1}, "must be from 1 to 1000"),
        ("results", {"prompt_id": 1, "consistency": 3, "realism": 1, "aesthetic_quality": 1}, "one of 0, 1, 2, got 3"),
        ("results", {"prompt_id": 1, "consistency": 1, "realism": 1}, "aesthetic_quality is missing"),
    ],
)
def test_lines_that_do_not_fit_are_named(tmp_path: Path, kind: str, row: Any, problem: str) -> None:
    result, _ = score(kind, write_lines(tmp_path / "l", [row]))
    assert result.exit_code == 2 and problem in result.output
