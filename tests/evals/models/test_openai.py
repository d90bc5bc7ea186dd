"""`openai:MODEL` against a server on 127.0.0.1 that speaks the protocol and misbehaves."""

from __future__ import annotations

import io
import itertools
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from typing import Any

import images_server as at
import pytest
from PIL import Image

import evals
from evals.api import GenerationRequest, ModelOptions
from evals.errors import EvalError, MissingRequirementError, ModelError, StoreError, UsageError
from evals.http.endpoint import EndpointError
from evals.models.openai import OpenAIModel, create
from evals.results import load

FAST = {"max_wait_s": 1.0, "timeout_s": 5.0, "max_retries": 3}
QUIET = {"quiet": True, "report": False, "tracking__enabled": False, "judge": "dummy"}


def make(server: Any, tmp_path: Path, options: dict[str, Any] | None = None, **args: Any) -> OpenAIModel:
    extra = {"base_url": server.url, "cache": str(tmp_path / "cache"), **FAST, **args}
    model = create("pixels-1", ModelOptions(**(options or {}), extra=extra))
    model.load()
    if model._endpoint is not None:  # waits between attempts, without the waiting
        object.__setattr__(model._endpoint.limits, "backoff_s", 0.01)
    return model


def requests(count: int = 1, seed: int = 1, **more: Any) -> list[GenerationRequest]:
    return [GenerationRequest(f"s{i}", 0, f"prompt {i}", seed + i, **more) for i in range(count)]


def colours(pictures: Any) -> list[Any]:
    return [p.convert("RGB").getpixel((0, 0)) for p in pictures]


def one_error(model: OpenAIModel) -> str:
    (result,) = model.generate(requests())
    assert isinstance(result, Exception), result
    assert at.KEY not in str(result) and "\n" not in str(result)
    return f"{type(result).__name__}: {result}"


# -- the protocol ---------------------------------------------------------------------------------


def test_a_request_is_what_the_protocol_says(server, tmp_path) -> None:
    model = make(
        server, tmp_path, {"width": 32, "height": 32}, body={"quality": "low"}, seed_field="seed"
    )
    (picture,) = model.generate(requests(seed=2**40 + 7))
    assert picture.convert("RGB").size == (32, 32)
    (asked,) = server.asked
    assert asked.path == "/v1/images/generations"
    assert asked.headers["Authorization"] == f"Bearer {at.KEY}"
    assert asked.body == {
        "model": "pixels-1",
        "prompt": "prompt 0",
        "n": 1,
        "size": "32x32",
        "seed": 7,
        "quality": "low",
    }


def test_a_server_without_a_key_is_sent_none(server, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    make(server, tmp_path, key_variable="none").generate(requests())
    assert "Authorization" not in server.asked[0].headers


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_pictures_come_in_the_usual_kinds(kind: str, server, tmp_path) -> None:
    server.script = [at.reply(200, at.b64(at.picture_of("x", 1, kind=kind)))]
    (picture,) = make(server, tmp_path).generate(requests())
    assert picture.convert("RGB").size == (16, 16)


def test_a_picture_given_as_an_address_is_fetched_without_the_key(server, tmp_path) -> None:
    server.script = [at.reply(200, {"data": [{"url": f"{server.url}/files/1.png?sig=abc"}]})]
    (picture,) = make(server, tmp_path).generate(requests())
    assert picture.convert("RGB").getpixel((0, 0)) == Image.open(
        io.BytesIO(at.picture_of("url", 1))
    ).getpixel((0, 0))
    assert server.asked[1].path == "/v1/files/1.png?sig=abc"
    assert "Authorization" not in server.asked[1].headers


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:9/x.png",
        "https://127.0.0.1/x.png",
        "https://169.254.169.254/latest/meta-data",
        "https://metadata.google.internal/x",
        "file:///etc/passwd",
        "http://example.com/x.png",
        "https://[::1]/x",
        "https://[bad",
    ],
)
def test_addresses_that_no_picture_has_are_not_fetched(url: str, server, tmp_path) -> None:
    server.script = [at.reply(200, {"data": [{"url": url}]})]
    assert "names a place that is not fetched" in one_error(make(server, tmp_path))
    assert len(server.asked) == 1


# -- what passes by itself ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        at.error(500, "oops"),
        at.error(503),
        at.error(429, "slow down", "rate_limit_exceeded"),
        at.raw(b"<html>bad gateway</html>"),
        at.raw(b'{"data": [{"b64'),
        at.raw(b"[1, 2]"),
        at.truncated,
        at.hangs_up,
    ],
    ids=["500", "503", "429", "html", "broken-json", "no-object", "truncated", "reset"],
)
def test_what_passes_is_tried_again(bad: Any, server, tmp_path) -> None:
    server.script = [bad, bad]
    model = make(server, tmp_path)
    (picture,) = model.generate(requests())
    assert picture.convert("RGB").size == (16, 16)
    assert len(server.asked) == 3 and server.served == ["prompt 0"]
    assert model.usage()["retries"] == 2


def test_what_does_not_pass_is_that_samples_error(server, tmp_path) -> None:
    server.by_prompt["prompt 1"] = at.error(500, f"key {at.KEY}\nis fine")
    fine, failed, other = make(server, tmp_path).generate(requests(3))
    assert str(failed) == "status 500: key [redacted] is fine; given up after 4 attempts"
    assert colours([fine, other]) and Counter(a.body["prompt"] for a in server.asked)["prompt 1"] == 4


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_is_honoured_by_all_workers(form: str, server, tmp_path) -> None:
    wait = "0.6" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    server.script = [at.error(429, "slow", None, Retry_After=wait)]
    model = make(server, tmp_path, workers=1, max_wait_s=5.0)
    began = time.monotonic()
    model.generate(requests(2))
    assert [a.body["prompt"] for a in server.asked] == ["prompt 0", "prompt 0", "prompt 1"]
    assert server.asked[1].at - began >= (0.6 if form == "seconds" else 0.9)


def test_a_wait_that_is_too_long_ends_the_run_and_says_so(server, tmp_path) -> None:
    server.script = [at.error(429, "daily limit", None, Retry_After="7200")]
    with pytest.raises(EndpointError, match=r"asks to wait 7,200 s .* run the same command again"):
        make(server, tmp_path).generate(requests())
    assert len(server.asked) == 1


@pytest.mark.parametrize("slow", [at.drips_head, at.drips_body])
def test_a_server_that_drips_is_left_in_time(slow: Any, server, tmp_path) -> None:
    server.script = [slow, slow]
    model = make(server, tmp_path, timeout_s=0.5, max_retries=1)
    began = time.monotonic()
    assert "no whole answer within 0.5 s; given up after 2 attempts" in one_error(model)
    assert time.monotonic() - began < 5
    assert model.usage()["unanswered"] == 2  # they may be charged for all the same


def test_the_rate_limit_spaces_requests(server, tmp_path) -> None:
    make(server, tmp_path, requests_per_minute=600, workers=4).generate(requests(5))
    times = sorted(a.at for a in server.asked)
    assert times[-1] - times[0] >= 0.35 and len(times) == 5


def test_requests_run_side_by_side_and_come_back_in_order(server, tmp_path) -> None:
    server.seconds = 0.2
    model = make(server, tmp_path, workers=3)
    pictures = model.generate(requests(6))
    assert [c[0] for c in colours(pictures)] == [
        sum(f"prompt {i}".encode()) % 251 + 1 for i in range(6)
    ]
    assert server.most_at_once == 3


# -- what concerns one picture --------------------------------------------------------------------

SOUND = at.b64(at.picture_of("x", 1))["data"][0]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (at.error(400, "Your request was rejected", "content_policy_violation"), "ContentRefusedError: .*rejected"),
        (at.error(403, "blocked by our safety system", "moderation_blocked"), "ContentRefusedError: .*blocked"),
        (at.error(400, "unknown size", "invalid_size"), "RequestError: status 400: unknown size"),
        (at.reply(422, "what?"), "RequestError: status 422"),
        (at.reply(200, {"data": []}), "ReplyError: 0 pictures came where one was asked for"),
        (at.reply(200, {"data": [SOUND] * 4}), "ReplyError: 4 pictures came where one was asked for"),
        (at.reply(200, {"data": "x"}), "has no list `data`"),
        (at.reply(200, {"data": [{"b64_json": None, "url": None}]}), "neither b64_json nor url"),
        (at.reply(200, {"data": [{"b64_json": "@@@"}]}), "ReplyError: the picture is no base64"),
        (at.reply(200, at.b64(b"GIF89a not a picture")), "PictureError: .*is no picture of kind"),
        (at.reply(200, at.b64(at.picture_of("x", 1)[:-40])), "PictureError: .*damaged or cut short"),
    ],
)
def test_an_answer_without_the_picture_is_that_samples_error(
    answer: Any, message: str, server, tmp_path
) -> None:
    server.script = [answer]
    assert re.search(message, one_error(make(server, tmp_path)))
    assert len(server.asked) == 1  # asking again would cost again


def test_a_picture_of_another_size_is_no_answer(server, tmp_path) -> None:
    server.script = [at.reply(200, at.b64(at.picture_of("x", 1, 16)))]
    model = make(server, tmp_path, {"width": 32, "height": 32})
    (result,) = model.generate(requests())
    assert str(result) == "a picture of 16 x 16 pixels came, 32 x 32 was asked for"


# -- what concerns all of them --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (at.error(401, f"Incorrect API key provided: {at.KEY}"), r"refuses the key \(status 401"),
        (at.error(403, "no access"), "refuses the key"),
        (at.error(404, "The model `pixels-1` does not exist"), "does not know this request"),
        (at.error(429, "You exceeded your quota", "insufficient_quota"), "the quota is used up"),
        (at.reply(302, {}, Location="https://evil.example/v1"), "redirects to 'https://evil.example/v1'"),
        (at.reply(307, {}, Location="/v2/images"), "neither key nor prompts are sent on"),
    ],
)
def test_what_concerns_every_request_ends_the_run_in_one_line(
    answer: Any, message: str, server, tmp_path
) -> None:
    server.script = [answer]
    with pytest.raises(EndpointError, match=message) as caught:
        make(server, tmp_path).generate(requests())
    assert at.KEY not in str(caught.value) and "\n" not in str(caught.value)
    assert len(server.asked) == 1


def test_an_outage_ends_the_run_instead_of_failing_thousands(server, tmp_path) -> None:
    server.script = [at.error(500)] * 200
    model = make(server, tmp_path, max_retries=0)
    with pytest.raises(EndpointError, match="answered none of the last 16 requests"):
        model.generate(requests(64))
    assert len(server.asked) < 64


@pytest.mark.parametrize(
    ("spec", "args", "options", "message"),
    [
        ("", {}, {}, "needs the name of a model"),
        ("m", {"api_key": "sk-secret-secret-secret"}, {}, "keys come from the environment only"),
        ("m", {"key_variable": "sk-secret-secret-secret"}, {}, "key_variable is no name"),
        ("m", {"wokers": 3}, {}, "Did you mean: workers"),
        ("m", {"workers": 0}, {}, "give a whole number from 1 to 64"),
        ("m", {"workers": True}, {}, "give a whole number"),
        ("m", {"timeout_s": "soon"}, {}, "give a number from 0.05"),
        ("m", {"max_cost": 3}, {}, "needs model.args.price"),
        ("m", {"base_url": "ftp://x/v1"}, {}, "is no address"),
        ("m", {"base_url": "http://me:pw@host/v1"}, {}, "carries a user"),
        ("m", {"base_url": "http://host:99999/v1"}, {}, "is no address"),
        ("m", {"body": {"n": 4}}, {}, "every request is for one picture"),
        ("m", {"body": {"size": "1x1"}}, {}, "give --width and --height"),
        ("m", {"body": {"api_key": "x"}}, {}, "looks like a secret"),
        ("m", {"body": [1]}, {}, "give a map"),
        ("m", {"body": {"seed": 1}, "seed_field": "seed"}, {}, "give one of them"),
        ("m", {}, {"steps": 20}, "--steps 20: the protocol of the endpoint has no such setting"),
        ("m", {}, {"dtype": "float16"}, "--dtype float16"),
        ("m", {}, {"width": 512}, "give --width and --height, or neither"),
    ],
)
def test_bad_use_is_refused_before_anything_is_asked(spec, args, options, message, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", at.KEY)
    with pytest.raises(UsageError, match=message) as caught:
        create(spec, ModelOptions(**options, extra=args))
    assert "sk-secret" not in str(caught.value) and "pw" not in str(caught.value)


def test_a_missing_key_is_said_at_once(monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(MissingRequirementError, match="set the environment variable OPENAI_API_KEY"):
        create("m", ModelOptions())
    monkeypatch.setenv("OPENAI_API_KEY", "a key\nwith lines")
    with pytest.raises(UsageError, match="holds characters that no key has"):
        create("m", ModelOptions())


def test_an_endpoint_that_does_not_answer_is_said_before_the_first_picture(server, tmp_path) -> None:
    with pytest.raises(MissingRequirementError, match="does not answer .*start it, or give another"):
        make(server, tmp_path, base_url="http://127.0.0.1:1/v1")
    with pytest.raises(StoreError, match="cannot be written"):
        (tmp_path / "file").write_text("")
        make(server, tmp_path, cache=str(tmp_path / "file" / "cache"))


# -- money and memory -----------------------------------------------------------------------------


def test_the_estimate_counts_what_is_not_paid_yet(server, tmp_path) -> None:
    model = make(server, tmp_path, price=0.04)
    line = "openai:pixels-1: 10 pictures to ask for; about 0.40 at 0.04 each"
    assert model.announce(requests(10)) == line
    model.generate(requests(4))
    assert model.announce(requests(10)) == (
        "openai:pixels-1: 6 pictures to ask for, 4 of 10 were paid for before; about 0.24 at 0.04 each"
    )
    assert "gives an estimate" in make(server, tmp_path).announce(requests(1))


def test_more_than_max_cost_is_refused_and_never_passed(server, tmp_path) -> None:
    model = make(server, tmp_path, price=0.04, max_cost=0.2, workers=1)
    with pytest.raises(UsageError, match=r"about 0.24 at 0.04 each, more than model.args.max_cost = 0.2"):
        model.announce(requests(6))
    model.announce(requests(5))
    server.script = [at.hangs_up]  # may have been charged: it counts
    with pytest.raises(ModelError, match="0.20 is spent, and one more picture would pass"):
        model.generate(requests(5))
    assert len(server.asked) == 5 and len(server.served) == 4
    assert model.usage()["estimated_cost"] == 0.2
    again = make(server, tmp_path, price=0.04, max_cost=0.2)
    assert "1 picture to ask for, 4 of 5" in again.announce(requests(5))


def test_nothing_is_paid_twice(server, tmp_path) -> None:
    first = make(server, tmp_path).generate(requests(4))
    second = make(server, tmp_path, workers=2)
    assert colours(second.generate(requests(4))) == colours(first)
    assert len(server.asked) == 4 and second.usage()["paid_before"] == 4
    second.generate(requests(4, seed=100))  # another seed asks anew
    assert len(server.asked) == 8
    make(server, tmp_path, body={"quality": "low"}).generate(requests(4))
    assert len(server.asked) == 12
    make(server, tmp_path, cache="none").generate(requests(4))
    assert len(server.asked) == 16


def test_a_damaged_memory_counts_as_none(server, tmp_path) -> None:
    make(server, tmp_path).generate(requests(3))
    pictures = sorted((tmp_path / "cache").rglob("*.picture"))
    pictures[0].write_bytes(pictures[0].read_bytes()[:-4])
    pictures[1].unlink()
    pictures[2].with_suffix(".json").write_text("{")
    results = make(server, tmp_path).generate(requests(3))
    assert len(server.asked) == 6 and len(colours(results)) == 3


# -- whole runs -----------------------------------------------------------------------------------


def run_fruit(server: Any, tmp_path: Path, fruit: Any, **settings: Any) -> Any:
    args = {
        "base_url": server.url,
        "cache": str(tmp_path / "cache"),
        **FAST,
        **settings.pop("args", {}),
    }
    named = {f"model__args__{name}": value for name, value in args.items()}
    return evals.evaluate(
        fruit, "openai:pixels-1", output=tmp_path / "run", num_images=1, **{**QUIET, **named, **settings}
    )


def test_a_run_with_every_kind_of_trouble_loses_nothing_and_doubles_nothing(
    server, tmp_path, fruit, capsys
) -> None:
    refused, broken = fruit.samples()[3].prompt, fruit.samples()[9].prompt
    server.by_prompt[refused] = at.error(400, "rejected", "content_policy_violation")
    server.by_prompt[broken] = at.reply(200, {"data": []})
    server.script = [
        at.error(500), at.serve, at.error(429, "", None, Retry_After="0.1"), at.truncated,
        at.serve, at.raw(b"{"), at.hangs_up,
    ]
    run = run_fruit(server, tmp_path, fruit, quiet=False, args={"price": 0.02})
    assert "openai:pixels-1: 24 pictures to ask for; about 0.48 at 0.02 each" in capsys.readouterr().err
    rows = load(run.root).outputs()
    errors = {row["prompt"]: row["error"] for row in rows if row["status"] == "error"}
    assert set(errors) == {refused, broken} and "ContentRefusedError" in errors[refused]
    assert run.results["counts"]["failed"] == 2 and run.results["counts"]["scored"] == 22
    assert run.problem is not None  # 2 of 24 are more than 1 %
    assert Counter(server.served).most_common(1)[0][1] == 1 and len(server.served) == 22
    usage = run.manifest["sessions"][0]["usage"]
    assert usage["pictures"] == 22 and usage["retries"] >= 3
    # Retrying asks for the two that failed, although their batches are made again whole.
    server.by_prompt.clear()
    before = len(server.asked)
    again = run_fruit(server, tmp_path, fruit, retry_errors=True)
    assert again.problem is None and len(server.asked) - before == 2
    assert sorted(server.served) == sorted(s.prompt for s in fruit.samples())


def test_the_share_of_errors_decides_about_the_exit_code(server, tmp_path, fruit) -> None:
    server.by_prompt[fruit.samples()[3].prompt] = at.error(400, "rejected", "content_policy_violation")
    assert run_fruit(server, tmp_path, fruit, max_errors=0.1).problem is None
    assert run_fruit(server, tmp_path, fruit, max_errors=0.01).problem is not None


def test_a_run_that_an_outage_ended_goes_on_where_it_was(server, tmp_path, fruit) -> None:
    server.script = [*[at.serve] * 18, at.error(401, "expired")]
    with pytest.raises(EvalError, match="refuses the key"):
        run_fruit(server, tmp_path, fruit, batch_size=4, args={"workers": 1})
    served = len(server.served)
    run = run_fruit(server, tmp_path, fruit, batch_size=4)
    assert run.problem is None and served == 18
    assert sorted(server.served) == sorted(s.prompt for s in fruit.samples())  # each exactly once


def test_a_killed_run_pays_for_nothing_twice(server, tmp_path) -> None:
    """SIGKILL in the middle of a batch of sixteen; what had arrived is not asked for again."""
    server.seconds = 0.05
    command = [
        sys.executable, "-m", "evals.cli.main", "run", "--task", "geneval", "--model", "openai:pixels-1",
        "--judge", "dummy", "--limit", "24", "--num-images", "1", "--no-track", "-q",
        "--output", str(tmp_path / "run"), "--set", f"model.args.base_url={server.url}",
        "--set", f"model.args.cache={tmp_path / 'cache'}", "--set", "model.args.workers=2",
    ]  # fmt: skip
    process = subprocess.Popen(command, env=dict(os.environ))
    until = time.monotonic() + 120
    while len(server.served) < 9 and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    time.sleep(0.3)
    kept = len(list((tmp_path / "cache").rglob("*.json")))
    assert 7 <= kept < 24
    finished = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    counts = Counter(server.served)
    # Only what was under way when the process was killed, at most one picture a worker, was paid for in vain.
    assert len(counts) == 24 and sum(counts.values()) - 24 <= 2
    everything = [p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()]
    assert not any(at.KEY.encode() in data for data in everything)


def test_ctrl_c_ends_requests_that_are_under_way(server, tmp_path) -> None:
    import threading

    server.seconds = 30.0
    model = make(server, tmp_path, timeout_s=60)
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    began = time.monotonic()
    # Python takes no notice of SIGINT where its shell started it in the background.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.generate(requests(4))
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 10


def test_rewritten_prompts_are_said_in_the_results(server, tmp_path, fruit) -> None:
    numbers = itertools.count()

    def rewriting(handler: Any, asked: Any, number: int) -> None:
        data = at.picture_of(asked.body["prompt"], next(numbers))
        at.reply(200, at.b64(data, revised_prompt="A photorealistic apple"))(handler, asked, number)

    for sample in fruit.samples():
        server.by_prompt[sample.prompt] = rewriting
    run = run_fruit(server, tmp_path, fruit)
    assert any("rewrote prompts" in w for w in run.results["warnings"])
    assert run.manifest["sessions"][0]["usage"]["rewritten_prompts"] == 24


def test_manifest_and_logs_hold_no_key(server, tmp_path, fruit, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    server.script = [at.error(500, f"Authorization: Bearer {at.KEY}")]
    run = run_fruit(server, tmp_path, fruit)
    text = json.dumps(run.manifest)
    assert at.KEY not in text + caplog.text
    assert run.manifest["model"]["settings"]["base_url"] == server.url
    assert "unknown, and may change" in run.manifest["model"]["info"]["weights"]


def test_upstream_seeds_are_refused(server, tmp_path) -> None:
    with pytest.raises(UsageError, match="an endpoint has none"):
        make(server, tmp_path).generate(requests(series=True))
