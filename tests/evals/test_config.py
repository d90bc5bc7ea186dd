from __future__ import annotations

from pathlib import Path

import pytest

from evals.api import Identity
from evals.config import (
    RunConfig,
    public_config,
    resolve,
    set_key,
)
from evals.errors import ConfigError, InputError
from evals.fingerprint import differing_keys, fingerprint, sha256_of
from evals.settings.files import parse_assignment, read_config_file, read_layer
from evals.settings.show import as_yaml, json_schema, settings_of

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
        ("c.yaml", "generation: {stepz: 3}", "c.yaml:1: unknown key 'generation.stepz'"),
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


def test_settings_that_a_model_keeps_quiet_about_are_in_the_fingerprint() -> None:
    quiet = Identity("painter", "1", "aa", "flat", settings={"noise": 0.1})
    given = make(generation__height=96, generation__steps=5)
    assert prints(given, quiet)["generation.height"] == 96
    assert prints(make(), quiet).get("generation.height") is None
    # A model that tells: its own value counts, so that naming the default changes nothing.
    assert "generation.steps" not in prints(given) and prints(given)["generation.height"] == 96


def test_auto_fits_what_it_became() -> None:
    auto, eight, nine = (prints(make(batch_size=b)) for b in ("auto", 8, 9))
    resolved = {"batch_size": 8}
    assert differing_keys(auto, eight, resolved) == []
    assert differing_keys(eight, auto, resolved) == []
    assert differing_keys(auto, nine, resolved) == ['batch_size: recorded "auto", wanted 9']


def test_passwords_in_urls_stay_out_of_the_manifest() -> None:
    config = make(tracking__tracking_uri="https://me:secret@tracking.example:5000/x")
    assert public_config(config)["tracking"]["tracking_uri"] == "https://tracking.example:5000/x"


def test_every_key_of_a_file_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(
        "# comment\nmodel: nano\ngeneration:\n  steps: 9\ntracking:\n  tags:\n    a: 1\n    b: 2\n"
        "judge.batch_size: 4\n"
    )
    _, places = read_layer(path)
    assert places == {
        "model.name": f"file {path}:2",
        "generation.steps": f"file {path}:4",
        "tracking.tags": f"file {path}:6",
        "tracking.tags.a": f"file {path}:7",
        "tracking.tags.b": f"file {path}:8",
        "judge.batch_size": f"file {path}:9",
    }
    path = tmp_path / "a.json"
    path.write_text('{\n\t"seed": 3,\n\t"generation": {\n\t\t"steps": 5}}')
    assert read_layer(path)[1] == {
        "seed": f"file {path}:2", "generation.steps": f"file {path}:4",
    }  # fmt: skip


def test_tags_and_arguments_are_merged_name_by_name() -> None:
    config, origins = resolve(
        [
            ({"tracking.tags": "file a", "model.args": "file a"},
             {"task": "t", "model": {"args": {"x": 1, "y": 2}}, "tracking": {"tags": {"k": "v"}}}),
            ("--set", {"model": {"args": {"y": 3}}, "tracking": {"tags": {"l": "w"}}}),
        ]
    )  # fmt: skip
    assert config.model.args == {"x": 1, "y": 3} and config.tracking.tags == {"k": "v", "l": "w"}
    assert origins["model.args.x"] == "file a" and origins["model.args.y"] == "--set"


def test_a_wrong_value_in_a_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("task: geneval\nseed: 1\nlimit: 0\n")
    layer, places = read_layer(path)
    with pytest.raises(ConfigError, match=r"limit = 0 \(from file .*a.yaml:3\) is not allowed"):
        resolve([(places, layer)])


def test_shown_settings_have_an_origin_each_and_can_be_given_back(tmp_path: Path) -> None:
    config, origins = resolve(
        [
            ("file a.yaml:1", {"task": "geneval", "model": "dummy", "seed": 7}),
            ("--set", {"model": {"args": {"api_key": "sk-1", "note": "null: #x"}}}),
        ]
    )
    settings, notes = settings_of(config, origins)
    assert notes == [] and {s.origin.split()[0] for s in settings.values()} == {
        "file", "--set", "default", "preset",
    }  # fmt: skip
    assert settings["num_images"].value == 4 and settings["num_images"].origin == "preset geneval"
    assert settings["judge.name"].value == "dummy"
    assert settings["batch_size"].becomes == 8
    path = tmp_path / "shown.yaml"
    path.write_text(as_yaml(settings, notes))
    assert "sk-1" not in path.read_text()
    again = resolve([("file", read_config_file(path))])[0]
    assert again.model.args == {"api_key": "[redacted]", "note": "null: #x"}
    assert (again.seed, again.num_images, again.batch_size) == (7, 4, "auto")


def test_the_schema_accepts_what_files_hold_and_refuses_what_they_must_not() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    for good in ({}, {"model": "nano"}, {"model": {"name": "nano"}, "generation": {"steps": 3}}):
        validator.validate(good)
    for bad in ({"modell": "nano"}, {"limit": 0}, {"generation": {"stepz": 1}}, {"batch_size": "x"}):
        assert list(validator.iter_errors(bad)), bad
