"""Choices and dialogues made of plain calls of a model."""

import json

import pytest

from evals.api import AnswerRequest, Choice, Identity
from evals.errors import UsageError
from evals.phases import answers


class Model:
    identity = Identity("m", "1", "0", "test")

    def __init__(self):
        self.calls = []

    def answer(self, requests):
        self.calls.append([r.prompt for r in requests])
        return [ValueError("no") if "bad" in r.prompt else f"{r.prompt}!" for r in requests]

    def log_likelihoods(self, requests, continuations):
        assert all(not r.choices for r in requests)
        return [RuntimeError("broken") if "x" in text else -float(len(text)) for text in continuations]


def request(name, **further):
    return AnswerRequest(name, name, 0, **further)


def test_plain_requests_are_one_call():
    model = Model()
    assert answers.of(model)([request("a"), request("b")]) == ["a!", "b!"]
    assert model.calls == [["a", "b"]]


def test_choices_become_json_and_keep_their_places():
    choices = (Choice("q", " yes"), Choice("q", "q! no", needs_greedy=True))
    first, second, third = answers.of(Model())(
        [request("a"), request("b", choices=choices), request("c", choices=(Choice("q", "x"),))]
    )
    assert first == "a!"
    assert json.loads(second) == [[-4.0, False], [-5.0, False]]
    assert isinstance(third, RuntimeError)


def test_greedy_says_whether_the_model_would_write_it():
    choices = (Choice("q", " q!", needs_greedy=True), Choice("q", " r", needs_greedy=True))
    (found,) = answers.of(Model())([request("b", choices=choices)])
    assert [greedy for _, greedy in json.loads(found)] == [True, False]


def test_dialogues_ask_as_often_as_they_like():
    def talk(ask):
        return ask(ask("one", ()), ("picture",))

    def fails(ask):
        return ask("bad", ())

    found = answers.of(Model())([request("a", dialogue=talk), request("b", dialogue=fails), request("c")])
    assert found[0] == "one!!"
    assert isinstance(found[1], ValueError)
    assert found[2] == "c!"


def test_a_model_without_likelihoods_is_refused_in_one_line():
    class Speaker:
        identity = Model.identity
        answer = Model.answer

    with pytest.raises(UsageError, match="'m' gives no log-likelihoods"):
        answers.of(Speaker())([request("a", choices=(Choice("q", "x"),))])
