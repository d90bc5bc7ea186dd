"""Settings from YAML, JSON, `--set`, shards: what is not understood is refused, and nothing is guessed."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("hypothesis")

from hypothesis import example, given
from hypothesis import strategies as st

from evals.config import (
    RunConfig,
    keys,
    public_config,
    resolve,
    set_key,
)
from evals.errors import ConfigError, InputError, UsageError
from evals.phases.plan import parse_shard
from evals.settings.files import parse_assignment, read_config_file
from evals.settings.yaml import SettingsError, parse

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
YAML_LIKE = st.text(alphabet="ab01.:-+_eExon~{}[],&*!|>?#'\"%@` \n\t\\\0\x85\ufeff", max_size=40)


def settings_of(*assignments: str) -> RunConfig:
    layer: dict[str, Any] = {}
    for text in assignments:
        set_key(layer, *parse_assignment(text))
    return resolve([("the command", {"task": "geneval"}), ("--set", layer)])[0]


def is_one_line(error: Exception) -> bool:
    return "\n" not in str(error) and len(str(error)) < 1500


@given(VALUES)
def test_json_is_yaml_that_is_read_back(value: Any) -> None:
    assert parse(json.dumps(value)) == value


@given(YAML_LIKE)
@example("[" * 30_000)
@example("- " * 30_000)
@example("{" * 30_000)
@example("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]")
@example("&a [*a]")
@example("!!python/object/apply:os.system ['true']")
@example("!!int ''")
@example("!!timestamp x")
@example("2020-13-45")
@example("? [1]\n: 2")
@example("? {a: b}\n: 2")
@example("9" * 5000)
@example("'" + "a" * 300_000 + "'")
@example("\ud800")
def test_any_text_is_json_values_or_a_short_reason(text: str) -> None:
    try:
        value = parse(text)
    except SettingsError as error:
        assert is_one_line(error) and len(str(error)) < 400
    else:
        json.dumps(value)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("010", 10),  # 8 in YAML 1.1
        ("1:2:3", "1:2:3"),  # 3723 in YAML 1.1
        ("no", "no"),  # False in YAML 1.1
        ("1e-3", 0.001),  # a text in YAML 1.1
        ("2020-01-01", "2020-01-01"),
        ("0x1F", 31),
        ("true", True),
        ("~", None),
        (".inf", math.inf),
        ("1_000", "1_000"),
    ],
)
def test_scalars_mean_what_they_look_like(text: str, value: Any) -> None:
    assert parse(text) == value and type(parse(text)) is type(value)


@given(
    st.sampled_from([*keys(), "model", "judge", "model.args.x", "tracking.tags.x", "nope", ""]),
    YAML_LIKE | VALUES.map(json.dumps),
)
@example("limit", "true")
@example("max_errors", ".nan")
@example("seed", "1e400")
@example("model.args.x", "2020-13-45")
def test_an_assignment_gives_a_config_or_one_line(key: str, text: str) -> None:
    try:
        config = settings_of(f"{key}={text}")
    except UsageError as error:
        assert is_one_line(error)
    else:
        written = json.dumps(public_config(config), allow_nan=False)
        assert RunConfig.model_validate(json.loads(written)) == config


@given(st.binary(max_size=80) | YAML_LIKE.map(lambda t: t.encode("utf-8", "surrogatepass")))
@example(b"\xff\xfel\x00i\x00m\x00i\x00t\x00")
@example(b"\xef\xbb\xbflimit: 5\r\n")
def test_any_file_gives_a_layer_or_one_line_with_its_name(tmp_path: Path, raw: bytes) -> None:
    for name in ("settings.yaml", "settings.json"):
        path = tmp_path / name
        path.write_bytes(raw)
        try:
            resolve([("the command", {"task": "geneval"}), ("file", read_config_file(path))])
        except InputError as error:
            assert is_one_line(error) and str(path) in str(error)
        except ConfigError as error:
            assert is_one_line(error)


def test_a_key_twice_in_a_file_is_refused(tmp_path: Path) -> None:
    """`limit: 12` far above `limit: 553`: the run was not the one its author read."""
    for name, text in (
        ("a.yaml", "limit: 12\nseed: 1\nlimit: 553\n"),
        ("b.json", '{"limit": 12, "limit": 553}'),
    ):
        path = tmp_path / name
        path.write_text(text)
        with pytest.raises(InputError, match="stands twice"):
            read_config_file(path)


def test_truth_values_are_no_numbers() -> None:
    """`--set limit=true` ran one prompt."""
    for key in ("limit", "seed", "generation.steps", "generation.guidance_scale", "batch_size"):
        with pytest.raises(ConfigError, match=f"{key} = True .from --set. is not allowed"):
            settings_of(f"{key}=true")
    assert settings_of("tracking.enabled=false").tracking.enabled is False


def test_a_bomb_of_aliases_is_refused(tmp_path: Path) -> None:
    """Nine lines that stand for a billion values filled the memory when the manifest was written."""
    lines = ["model:", "  args:", "    l0: &l0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"    l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 10)}]" for i in range(1, 10)]
    path = tmp_path / "bomb.yaml"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"bomb.yaml:4: .*alias \*l0 is not allowed"):
        read_config_file(path)


def test_an_endless_file_is_not_read_to_its_end() -> None:
    with pytest.raises(InputError):
        read_config_file("/dev/zero")


def test_a_key_below_a_value_is_refused() -> None:
    """`--set model.args.x=1 --set model.args.x.y=2` was an AttributeError."""
    with pytest.raises(ConfigError, match=r"'model.args.x.y' cannot be set: 'x' was given as 1"):
        settings_of("model.args.x=1", "model.args.x.y=2")
    with pytest.raises(ConfigError, match="unknown key 'model.args.'"):
        settings_of("model.args.=2")


@pytest.mark.parametrize("value", [math.nan, math.inf, {1, 2}, b"x", object(), {"a": [math.nan]}])
def test_arguments_that_a_manifest_cannot_hold_are_refused(value: Any) -> None:
    """NaN passed the check of the settings and broke the writing of the manifest."""
    with pytest.raises(ConfigError, match="model.args = .* is not allowed: must be texts, finite"):
        resolve([("argument", {"task": "geneval", "model": {"args": {"x": value}}})])


@given(st.text(alphabet="0123456789/ -+.٣²a\n", max_size=12))
@example("0/" + "9" * 5000)
@example("0/4\n")
@example("٣/٤")
def test_a_shard_is_two_plain_numbers_or_one_line(text: str) -> None:
    """5,000 digits were a traceback, as were other scripts' digits that only look like numbers."""
    try:
        index, count = parse_shard(text)
    except ConfigError as error:
        assert is_one_line(error) and len(str(error)) < 300
    else:
        assert text == text.strip() and text.isascii()
        assert (int(text.split("/")[0]), int(text.split("/")[1])) == (index, count)
        assert 0 <= index < count
