from __future__ import annotations

from pathlib import Path

import pytest

from evals.api import Identity
from evals.config import (
    RunConfig,
    differing_keys,
    fingerprint,
    parse_assignment,
    public_config,
    read_config_file,
    resolve,
    set_key,
    sha256_of,
)
from evals.errors import ConfigError, InputError

MODEL = Identity("nano", "1", "aa", "stickers", settings={"steps": 20})
JUDGE = Identity("stickers", "1", "bb", "stickers")


def make(**values: object) -> RunConfig:
    layer: dict = {"task": "geneval"}
    for key, value in values.items():
        set_key(layer, key.replace("__", "."), value)
    return resolve([("test", layer)])[0]


def prints(config: RunConfig, model: Identity = MODEL) -> dict:
    return fingerprint(config, task=("geneval", "1", "cc"), num_images=4, model=model, judge=JUDGE)


def test_later_layers_win_and_origins_are_known() -> None:
    config, origins = resolve(
        [
            ("file", {"task": "geneval", "seed": 1, "generation": {"steps": 5, "height": 32}}),
            ("environment", {"generation": {"steps": 6}}),
            ("flags", {"generation": {"steps": 7}}),
        ]
    )
    assert (config.seed, config.generation.steps, config.generation.height) == (1, 7, 32)
    assert origins["generation.steps"] == "flags" and origins["seed"] == "file"


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("limit", 0, "at least 1"),
        ("num_images", 0, "at least 1"),
        ("seed", -1, "at least 0"),
        ("seed", 2**53, "at most"),
        ("batch_size", 0, "at least 1"),
        ("batch_size", "many", "auto"),
        ("max_errors", 1.5, "at most 1"),
        ("seed_mode", "other", "'sample' or 'upstream'"),
        ("generation.steps", 0, "at least 1"),
        ("generation.guidance_scale", float("nan"), "finite"),
        ("generation.guidance_scale", -1.0, "at least 0"),
        ("generation.height", 7, "at least 8"),
        ("model.device", "gpu", "auto, cpu"),
        ("model.dtype", "int4", "'auto'"),
    ],
)
def test_wrong_values_are_named_with_what_is_allowed_and_where_they_came_from(
    key: str, value: object, allowed: str
) -> None:
    layer: dict = {"task": "geneval"}
    set_key(layer, key, value)
    with pytest.raises(ConfigError) as caught:
        resolve([("--set", layer)])
    message = str(caught.value)
    assert key in message and allowed in message and "--set" in message
    assert "\n" not in message


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ConfigError, match="limit.*;.*seed"):
        resolve([("x", {"task": "t", "limit": 0, "seed": -1})])


def test_an_unknown_key_gets_a_suggestion() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown key 'generation.stepz'. Did you mean: generation.steps"
    ):
        set_key({}, "generation.stepz", 1)


def test_assignments_are_read_as_yaml() -> None:
    assert parse_assignment("generation.steps=20") == ("generation.steps", 20)
    assert parse_assignment("tracking.enabled=false") == ("tracking.enabled", False)
    assert parse_assignment("model.args.a=[1, 2]") == ("model.args.a", [1, 2])
    for text in ("steps", "=3", "a=[1"):
        with pytest.raises(ConfigError, match="--set"):
            parse_assignment(text)


def test_config_files_name_the_file_and_line(tmp_path: Path) -> None:
    good = tmp_path / "a.yaml"
    good.write_text("model: nano\ngeneration:\n  steps: 9\n")
    assert read_config_file(good) == {"model": {"name": "nano"}, "generation": {"steps": 9}}
    for name, text, message in (
        ("b.yaml", "a: [1\nb: 2\n", r"b.yaml:\d+: not valid YAML"),
        ("c.yaml", "generation: {stepz: 3}", "c.yaml: unknown key 'generation.stepz'"),
        ("d.yaml", "- 1\n", "d.yaml: expected keys and values, got list"),
        ("e.yaml", "!!python/object/apply:os.system ['true']", "e.yaml"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match=message):
            read_config_file(tmp_path / name)
    with pytest.raises(InputError, match="cannot be read"):
        read_config_file(tmp_path / "missing.yaml")


def test_fingerprint_holds_what_changes_numbers_and_nothing_else() -> None:
    base = sha256_of(prints(make()))
    for same in (
        make(model__device="cuda"),
        make(tracking__experiment="x"),
        make(tracking__enabled=False),
        make(max_errors=0.5),
    ):
        assert sha256_of(prints(same)) == base
    for other in (make(seed=1), make(limit=3), make(batch_size=4), make(seed_mode="upstream")):
        assert sha256_of(prints(other)) != base
    faster = Identity("nano", "1", "aa", "stickers", settings={"steps": 10})
    retrained = Identity("nano", "1", "ab", "stickers", settings={"steps": 20})
    assert len({base, sha256_of(prints(make(), faster)), sha256_of(prints(make(), retrained))}) == 3


def test_auto_fits_what_it_became() -> None:
    auto, eight, nine = (prints(make(batch_size=b)) for b in ("auto", 8, 9))
    resolved = {"batch_size": 8}
    assert differing_keys(auto, eight, resolved) == []
    assert differing_keys(eight, auto, resolved) == []
    assert differing_keys(auto, nine, resolved) == ['batch_size: recorded "auto", wanted 9']


def test_passwords_in_urls_stay_out_of_the_manifest() -> None:
    config = make(tracking__tracking_uri="https://me:secret@tracking.example:5000/x")
    assert public_config(config)["tracking"]["tracking_uri"] == "https://tracking.example:5000/x"
