from __future__ import annotations

import json
import logging

import pytest

from evals.api import Identity
from evals.io.redact import MARK, RedactingFormatter, redact, redact_json


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("GET https://me:pw@host:5000/x?y=1 failed", "GET https://host:5000/x?y=1 failed"),
        ("postgresql+psycopg2://u:p%40w@db/mlflow", "postgresql+psycopg2://db/mlflow"),
        ("https://token@host/repo", "https://host/repo"),
        ("https://me:p@ss@host/x", "https://host/x"),
        ("http://h/v1?api_key=abc&n=3", f"http://h/v1?api_key={MARK}&n=3"),
        ("Authorization: Bearer abc.def-123", f"Authorization: Bearer {MARK}"),
        ("got header 'Bearer abcdefgh12345'", f"got header 'Bearer {MARK}'"),
        ('{"password": "hunter2", "n": 1}', f'{{"password": "{MARK}", "n": 1}}'),
        ("openai:gpt,api_key=sk-abc,base=1", f"openai:gpt,api_key={MARK},base=1"),
        ("Incorrect key sk-proj-aaaabbbbccccdddd", f"Incorrect key {MARK}"),
        ("hf_abcdefghijklmnopqrstuvwx expired", f"{MARK} expired"),
        ("OPENAI_API_KEY=abc", f"OPENAI_API_KEY={MARK}"),
    ],
)
def test_secrets_are_taken_out_of_text(text: str, expected: str) -> None:
    assert redact(text) == expected
    assert redact(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "a photo of a key and a token",
        "max_new_tokens=128, eos_token=</s>, num_query_tokens: 64",
        "tokenizer: fast, secretary: yes, keyboard=qwerty",
        "mail me@example.org",
        "https://host/x@y",
        "sqlite:////srv/a b/mlflow.db",
        "the password is on the wall",
    ],
)
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert redact(text) == text


def test_values_of_the_environment_are_taken_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_API_KEY", "Tr0ub4dor&3")
    monkeypatch.setenv("SOME_TOKEN", "Tr0ub4dor&3-and-more")
    monkeypatch.setenv("A_KEY", "stickers")  # too plain to be told from a word of the text
    monkeypatch.setenv("KEY_FILE", "/home/me/key.pem")
    text = "stickers said Tr0ub4dor&3-and-more of Tr0ub4dor&3, read from /home/me/key.pem"
    assert redact(text) == f"stickers said {MARK} of {MARK}, read from /home/me/key.pem"


def test_nested_values_are_taken_out_by_their_key() -> None:
    value = {
        "api_key": "x",
        "Authorization": ["a", "b"],
        "max_new_tokens": 5,
        "token": None,
        "inner": [{"client_secret": 1, "url": "https://a:b@c/d"}],
    }
    assert redact_json(value) == {
        "api_key": MARK,
        "Authorization": MARK,
        "max_new_tokens": 5,
        "token": None,
        "inner": [{"client_secret": MARK, "url": "https://c/d"}],
    }


def test_an_identity_carries_no_secret_whatever_a_plug_in_puts_into_it() -> None:
    identity = Identity(
        "x:https://me:pw@host/m",
        "1",
        "aa",
        "photos",
        settings={"base_url": "https://u:p@h/v1", "api_key": "sk-1", "steps": 3},
        info={"token": "t"},
    )
    text = json.dumps([identity.name, dict(identity.settings), dict(identity.info)])
    assert identity.name == "x:https://host/m" and identity.settings["steps"] == 3
    assert "pw@" not in text and "sk-1" not in text and '"t"' not in text


def test_logged_tracebacks_carry_no_secret() -> None:
    try:
        raise RuntimeError("no route to https://me:pw@host/")
    except RuntimeError as error:
        record = logging.LogRecord(
            "evals", logging.ERROR, "", 0, "key %s", ("api_key=1234",), None
        )
        record.exc_info = (type(error), error, error.__traceback__)
    text = RedactingFormatter("%(message)s").format(record)
    assert "pw@" not in text and "1234" not in text and "https://host/" in text
