"""A vision-language model behind an endpoint, as judge, at a local server that also misbehaves."""

from __future__ import annotations

import base64
import io
import json
import math
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from evals.api import ModelOptions, PaidJudge, ProbabilityJudge, QuestionJudge
from evals.errors import JudgeError, MissingRequirementError, UsageError
from evals.http.endpoint import EndpointError, RequestError
from evals.judges.parse import UnreadableAnswerError
from evals.judges.vlm_endpoint import create, read_message

KEY = "sk-test-0123456789abcdef"


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.script: list[tuple[int, dict[str, Any], dict[str, str]]] = []  # answers given first
        self.lock = threading.Lock()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are part of the tests."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.keys.append(self.headers.get("Authorization"))
            status, answer, headers = self.server.script.pop(0) if self.server.script else (200, {}, {})
        if status == 200 and not answer:
            answer = message(self.says(body["messages"][0]["content"]))
        data = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def says(self, content: list[dict[str, Any]]) -> str:
        """Reads the picture: red ones are red."""
        picture, text = content
        raw = base64.b64decode(picture["image_url"]["url"].removeprefix("data:image/png;base64,"))
        red, _, _ = Image.open(io.BytesIO(raw)).getpixel((0, 0))
        return ("Yes." if red > 128 else "no") if "red" in text["text"] else "It depends."

    def log_message(self, *args: Any) -> None: ...


def message(text: Any, **more: Any) -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text, **more}, "finish_reason": "stop"}]}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    server = Server()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    yield server
    server.shutdown()
    server.server_close()


RED, BLUE = Image.new("RGB", (8, 8), (250, 0, 0)), Image.new("RGB", (8, 8), (0, 0, 250))


def judge(**extra: Any):
    judge = create("some-vlm", ModelOptions(extra={"max_wait_s": 0.05, **extra}))
    judge.load()
    return judge


def test_each_question_is_asked_with_its_picture_and_answers_keep_their_order(server: Server) -> None:
    asked = judge(workers=4)
    assert isinstance(asked, QuestionJudge)
    images = [RED, BLUE] * 6
    assert asked.ask(images, ["Is it red?"] * 12) == ["yes", "no"] * 6
    body = server.bodies[0]
    assert body["model"] == "some-vlm" and body["temperature"] == 0 and body["max_tokens"] == 16
    picture, text = body["messages"][0]["content"]
    assert picture["type"] == "image_url" and text["text"] == "Is it red?\nAnswer with yes or no only."
    assert set(server.keys) == {f"Bearer {KEY}"}
    assert KEY not in json.dumps([asked.identity.settings, asked.identity.info, asked.identity.name])


def test_the_body_can_be_changed_and_fields_left_out(server: Server) -> None:
    body = {"max_tokens": None, "max_completion_tokens": 400, "reasoning_effort": "low"}
    asked = judge(body=body, prompt="Q: {question}")
    asked.ask([RED], ["red?"])
    (sent,) = server.bodies
    assert "max_tokens" not in sent and sent["max_completion_tokens"] == 400
    assert sent["messages"][0]["content"][1]["text"] == "Q: red?"
    assert asked.identity.settings["body"]["reasoning_effort"] == "low"


def test_bad_moments_pass(server: Server) -> None:
    busy = {"error": {"message": "slow down", "type": "rate_limit"}}
    server.script = [(429, busy, {"Retry-After": "0.01"}), (500, {}, {}), (503, {}, {})]
    assert judge().ask([RED], ["Is it red?"]) == ["yes"] and len(server.bodies) == 4


def test_one_bad_answer_costs_one_answer(server: Server) -> None:
    server.script = [(400, {"error": {"message": "picture too small", "code": "bad_image"}}, {})]
    refused, right, unread = judge(workers=1).ask([RED, RED, BLUE], ["Is it red?", "Is it red?", "Is it big?"])
    assert isinstance(refused, RequestError) and "picture too small" in str(refused)
    assert right == "yes"
    assert isinstance(unread, UnreadableAnswerError) and "'It depends.'" in str(unread)


def test_a_refused_key_ends_the_run_and_is_not_shown(server: Server) -> None:
    server.script = [(401, {"error": {"message": f"bad key {KEY}"}}, {})] * 8
    asked = judge(workers=2)
    with pytest.raises(EndpointError, match="refuses the key") as error:
        asked.ask([RED] * 8, ["Is it red?"] * 8)
    assert KEY not in str(error.value)


def likely(**top: float) -> tuple[int, dict[str, Any], dict[str, str]]:
    """A reply whose first token has these probabilities; _ in a name stands for a space."""
    found = [{"token": name.replace("_", " "), "logprob": math.log(p)} for name, p in top.items()]
    first = {"token": found[0]["token"], "logprob": found[0]["logprob"], "top_logprobs": found}
    choice = {**message("Yes")["choices"][0], "logprobs": {"content": [first]}}
    return 200, {"choices": [choice], "usage": {"prompt_tokens": 90, "completion_tokens": 1}}, {}


def test_probabilities_are_summed_over_the_spellings_of_the_word(server: Server) -> None:
    server.script = [likely(Yes=0.5, _Yes=0.125, yes=0.2, No=0.1), likely(No=0.9, yes=0.05)]
    asked = judge(workers=1)
    assert isinstance(asked, ProbabilityJudge)
    question = 'Does this figure show "a cat"? Please answer yes or no.'
    assert asked.probability([RED, BLUE], [question] * 2, "Yes") == pytest.approx([0.625, 0.0])
    sent = server.bodies[0]
    assert sent["logprobs"] is True and sent["top_logprobs"] == 20 and sent["max_tokens"] == 1
    assert sent["messages"][0]["content"][1]["text"] == question  # it says itself how it wants to be answered
    assert asked.usage() == {
        "questions": 2, "retries": 0, "unanswered": 0, "prompt_tokens": 180, "completion_tokens": 2,
        "estimated_cost": None,
    }  # fmt: skip


def test_replies_without_log_probabilities_say_so(server: Server) -> None:
    server.script = [(200, message("Yes"), {}), likely(Yes=0.9, _Yes=0.9)]
    for one in judge(workers=1).probability([RED, RED], ["red?"] * 2, "Yes"):
        assert isinstance(one, UnreadableAnswerError)
        assert "no log-probabilities" in str(one) or "make no probability (sum 1.8)" in str(one)


def test_what_questions_cost_is_said_first_and_never_passed(server: Server) -> None:
    asked = judge(price=0.5, max_cost=2.0, workers=1)
    assert isinstance(asked, PaidJudge)
    assert asked.announce(2, 4) == (
        "openai-vlm:some-vlm: 4 questions about 2 pictures to ask; about 2.00 at 0.5 each"
    )
    with pytest.raises(UsageError, match=r"about 2.50 at 0.5 each, more than judge\.args\.max_cost = 2: raise it, or"):
        asked.announce(2, 5)
    assert "judge.args.price=P" in judge().announce(1, 1)
    with pytest.raises(JudgeError, match="2.00 is spent, and one more question would pass judge.args.max_cost = 2"):
        asked.ask([RED] * 5, ["Is it red?"] * 5)
    assert len(server.bodies) == 4 and asked.usage()["estimated_cost"] == 2.0


def test_replies_without_a_text_say_why() -> None:
    assert read_message(message([{"type": "text", "text": "ye"}, {"type": "text", "text": "s"}])) == "yes"
    for reply, reason in (
        ({}, "holds no message"),
        ({"choices": []}, "holds no message"),
        ({"choices": [{"message": None}]}, "holds no message"),
        (message(None, refusal="I must not"), "refuses to answer: 'I must not'"),
        (message(""), "holds no text"),
        ({"choices": [{"message": {"content": ""}, "finish_reason": "length"}]}, "raise judge.args.body.max_tokens"),
    ):
        with pytest.raises(UnreadableAnswerError, match=reason):
            read_message(reply)


def test_settings_are_checked_and_named_as_the_judges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    for extra, text in (
        ({"works": 2}, "unknown key 'judge.args.works'"),
        ({"max_cost": 1}, "judge.args.max_cost needs judge.args.price, the price of one question"),
        ({"body": {"logprobs": False}}, "judge.args.body.logprobs is not allowed"),
        ({"workers": 0}, "judge.args.workers = 0"),
        ({"body": {"messages": []}}, "judge.args.body.messages is not allowed"),
        ({"api_key": "sk-1"}, "keys come from the environment only"),
    ):
        with pytest.raises(UsageError, match=text):
            create("m", ModelOptions(extra=extra))
    with pytest.raises(UsageError, match="openai-vlm:MODEL"):
        create("", ModelOptions())
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(MissingRequirementError, match=r"judge\.args\.key_variable"):
        create("m", ModelOptions())


def test_an_endpoint_that_is_not_there_is_said_before_anything_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    with pytest.raises(MissingRequirementError, match=r"does not answer.*judge\.args\.base_url"):
        create("m", ModelOptions(extra={"key_variable": "none"})).load()


def test_a_run_says_the_cost_before_anything_is_drawn_and_keeps_what_was_asked(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each of these prompts has several questions."""
    import evals

    def run(**args: Any) -> evals.Run:
        return evals.evaluate(
            "dpg_stickers", "dummy", judge="openai-vlm:some-vlm", output=tmp_path / "run", limit=2, num_images=1,
            report=False, tracking__enabled=False, judge__args=args, max_errors=1.0,
        )  # fmt: skip

    with pytest.raises(UsageError, match=r"questions about 2 pictures to ask; about .* more than"):
        run(price=0.5, max_cost=1)
    assert not list((tmp_path / "run").glob("outputs*")) and not server.bodies
    made = run(price=0.5, max_cost=100)
    said = capsys.readouterr().err
    (line,) = [x for x in said.splitlines() if x.startswith("openai-vlm:some-vlm:")]
    asked = len(server.bodies)
    assert asked > 2 and line == (
        f"openai-vlm:some-vlm: {asked} questions about 2 pictures to ask; about {asked / 2:.2f} at 0.5 each"
    )
    session = made.manifest["sessions"][-1]
    assert session["judge_usage"]["questions"] == asked and session["judge_usage"]["estimated_cost"] == asked / 2
    assert session["scored_beside"] == 2  # an endpoint waits for another processor than the model
