"""Secrets under attack: whatever form they are given in, no file, page or log of a run holds them."""

from __future__ import annotations

import logging
import re
import sys
import time
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis")

from hypothesis import example, given
from hypothesis import strategies as st

from evals.api import Identity
from evals.errors import EvalError
from evals.io.redact import redact, redact_json
from evals.models.dummy import DummyModel
from evals.runner import evaluate

SECRET = "hunter2Secret/XYZ+9"
PLAIN = "hunter2SecretXYZ9"


@pytest.mark.parametrize(
    "text",
    [
        "https://me:{}@host/x", "HTTPS://ME:{}@HOST", "https://{}@host/x", "postgresql://u:{}@h/db",
        "mysql://u:{}@h, mysql://v:{}@k", "https://h/?token={}", "https://h/?a=1&X-Amz-Signature={}&b=2",
        "api_key={}", "apikey={}", "APIKEY={}", "X-Api-Key: {}", "'api_key': '{}'", '"api_key": "{}"',
        "Authorization: Bearer {}", "authorization: Basic {}", "password: {}", "pwd={}", "token = {}",
        "--password {}", "--api-key {}", "accessToken={}", "clientSecret={}", "AWS_SECRET_ACCESS_KEY={}",
        "password='two words {}'", "\x00api_key={}", "\u202eapi_key={}",
    ],
)  # fmt: skip
def test_a_secret_is_found_where_its_place_says_so(text: str) -> None:
    """Found in passing: slashes in a password, `accessToken`, `pwd`, `--password X`, signed addresses, and the
    second word of a quoted password."""
    # A slash ends the host of an address, so what follows it there is a path.
    for secret in (PLAIN,) if text == "https://{}@host/x" else (SECRET, PLAIN):
        shown = redact(text.format(secret, secret))
        assert "hunter2" not in shown and "XYZ" not in shown and redact(shown) == shown


@pytest.mark.parametrize(
    "text",
    ["https://host:8080/path@version", "max_new_tokens=128", "pad_token_id: 3", "a tokenizer of 4000 words",
     "http://127.0.0.1:5000/#/experiments/1", "secretary: nobody", "mail me@host.org"],
)  # fmt: skip
def test_what_is_no_secret_stays(text: str) -> None:
    assert redact(text) == text


FRAGMENTS = st.sampled_from(
    ["api_key", "token", "=", ":", " ", '"', "'", "://", "@", "/", "?", "&", "Bearer ", "sk-", "--", "a",
     "hf_" + "x" * 20, "[redacted]", "\n", "\x00", "é", "\ud800", "password", "http", "8080"]
)  # fmt: skip


@given(st.lists(FRAGMENTS, max_size=14).map("".join))
@example("api_keyapi_key://://@@")
@example("a://u:/@x@h")
@example("--Bearer --api_key:")
def test_twice_is_once(text: str) -> None:
    once = redact(text)
    assert redact(once) == once
    assert redact_json({"x": [text]}) == {"x": [once]}


@pytest.mark.parametrize(
    "piece",
    ["api_key", "a", "x.-", "http://a", "a://u:", "token=", "Bearer ", "eyJ", "sk-", " ", "_token", "-", '="'],
)  # fmt: skip
def test_long_text_takes_time_in_proportion(piece: str) -> None:
    def seconds(length: int) -> float:
        began = time.process_time()
        redact(piece * (length // len(piece)))
        return time.process_time() - began

    assert seconds(100_000) < 8


class Talkative(DummyModel):
    """Puts secrets wherever a model can put text."""

    def __init__(self) -> None:
        super().__init__()
        own = self.identity
        self.identity = Identity(
            own.name, own.version, own.digest, "test", is_test_double=True, batch_size=2,
            settings={"api_key": SECRET, "endpoint": f"https://me:{SECRET}@host/v1"},
            info={"headers": {"Authorization": f"Bearer {SECRET}"}, "hf_token": SECRET},
        )  # fmt: skip

    def generate(self, requests: Any) -> Any:
        logging.getLogger("evals").warning("calling https://me:%s@host", SECRET)
        return [RuntimeError(f"401 for api_key={SECRET}"), *super().generate(requests[1:])]


def test_no_file_of_a_run_holds_a_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "environment-hunter2-XYZ")
    bound: list[Any] = []
    watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if watching and event == "socket.bind":
            bound.append(arguments[1])

    sys.addaudithook(watch)  # hooks stay for good, so this one is switched off
    try:
        evaluate(
            "geneval", Talkative(), judge="dummy", output=tmp_path / "run", limit=2, num_images=2,
            max_errors=1.0, tracking__enabled=False, tracking__tags={"password": SECRET},
            tracking__tracking_uri=f"http://me:{SECRET}@127.0.0.1:9/?token={SECRET}",
        )  # fmt: skip
    except EvalError as error:
        assert "hunter2" not in str(error)
        raise
    finally:
        watching = False
    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert b"hunter2" not in data, f"{path.name}: {data[max(0, data.find(b'hunter2') - 80) :][:160]!r}"
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err
    assert [a for a in bound if isinstance(a, tuple) and a[0] not in ("127.0.0.1", "::1")] == []


def test_no_server_of_ours_listens_to_the_network() -> None:
    """Every address in the sources that a server could be bound to is that of this machine."""
    import evals

    root = Path(evals.__file__).parents[1]
    for package in ("blip3o", "evals", "tasks", "reports"):
        for path in (root / package).rglob("*.py"):
            text = path.read_text(encoding="utf-8")
            for call in re.finditer(r"(?:HTTPServer|TCPServer|\.bind|create_server)\(\(([^,)]*)", text):
                address = call[1].strip()
                assert re.search(r"127\.0\.0\.1|localhost|::1|LOOPBACK|host", address), f"{path}: {call[0]}"
            assert not re.search(r"[\"']0\.0\.0\.0[\"']|--host[= ]0\.0\.0\.0", text), path
