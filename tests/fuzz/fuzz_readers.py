"""Coverage-guided fuzzing of the readers with atheris; not part of the tests.

    pip install atheris
    python tests/fuzz/fuzz_readers.py TARGET -max_total_time=600 -rss_limit_mb=4096 [CORPUS_FOLDER]

TARGET is one of the names below; everything after it is libFuzzer's. A target ends without an exception, or with
one of the project's own errors in one line; anything else stops the fuzzer, which keeps the input in a file.
"""

from __future__ import annotations

import io
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:
    sys.exit("atheris is not installed: pip install atheris (Linux, CPython 3.11 to 3.13)")

with atheris.instrument_imports(include=["evals", "tasks", "yaml", "blip3o.storage", "blip3o.vision"]):
    import evals.config
    import evals.io.jsonl
    import evals.io.redact
    import evals.io.strict_json
    import evals.phases.plan
    import evals.recorded
    import evals.run_shape
    import evals.settings.files
    import evals.settings.yaml
    import tasks.generation.dpg_records
    import tasks.generation.geneval_records  # noqa: F401
    from evals import discovery, registry
    from evals.errors import EvalError, InputError, UsageError

SCRATCH = Path(tempfile.mkdtemp(prefix="fuzz-readers-"))


def one_line(error: Exception, limit: int = 1500) -> None:
    text = str(error)
    assert text and "\n" not in text and len(text) < limit, repr(text[:300])


def strict_json(data: bytes) -> None:
    try:
        value = evals.io.strict_json.parse(data)
    except evals.io.strict_json.NotJsonError as error:
        one_line(error)
    else:
        again = json.dumps(value, allow_nan=True).replace("Infinity", "1e999")
        assert evals.io.strict_json.parse(again.encode()) == value


def yaml_settings(data: bytes) -> None:
    is_odd = data[:1] == b"s"  # UTF-16 can hold half a surrogate pair
    if is_odd and len(data) % 2:
        text = data[1:].decode("utf-16-le", "surrogatepass")
    else:
        text = data.decode("utf-8", "replace")
    try:
        json.dumps(evals.settings.yaml.parse(text))
    except evals.settings.yaml.SettingsError as error:
        one_line(error)


def assignment(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    try:
        layer: dict[str, Any] = {}
        evals.config.set_key(layer, *evals.settings.files.parse_assignment(text))
        config, _ = evals.config.resolve([("fuzz", {"task": "geneval"}), ("--set", layer)])[:2]
        json.dumps(evals.config.public_config(config), allow_nan=False).encode()
    except UsageError as error:
        one_line(error)


def shard(data: bytes) -> None:
    try:
        index, count = evals.phases.plan.parse_shard(data.decode("utf-8", "replace"))
        assert 0 <= index < count
    except UsageError as error:
        one_line(error)


def recorded(data: bytes) -> None:
    """The first byte chooses the task and the option."""
    kinds = [("geneval", "detections"), ("geneval", "crops"), ("geneval", "results"), ("dpg", "answers"),
             ("mme", "answers"), ("mmmu", "answers"), ("vqav2", "answers"), ("textvqa", "answers")]  # fmt: skip
    name, option = kinds[data[0] % len(kinds)] if data else kinds[0]
    path = SCRATCH / "lines.jsonl"
    path.write_bytes(data[1:])
    try:
        rows = TASKS[name].score_recorded(option, evals.recorded.read_lines(path))
        json.dumps(list(rows), allow_nan=False)
    except InputError as error:
        one_line(error)


def jsonl(data: bytes) -> None:
    """A damaged file of a run is scanned after a crash, and its rows are read by reports."""
    path = SCRATCH / "outputs.jsonl"
    path.write_bytes(data)
    for check in (evals.run_shape.checked_outputs, evals.run_shape.checked_scores):
        try:
            list(check(evals.io.jsonl.read_rows(path), path))
        except InputError as error:
            one_line(error)


def redaction(data: bytes) -> None:
    once = evals.io.redact.redact(data.decode("utf-8", "replace"))
    assert evals.io.redact.redact(once) == once


def weights(data: bytes) -> None:
    from blip3o.errors import WeightsError
    from blip3o.storage import read_tensors

    path = SCRATCH / "model.safetensors"
    path.write_bytes(data)
    try:
        read_tensors(path)
    except WeightsError as error:
        one_line(error)


def pictures(data: bytes) -> None:
    from PIL import Image

    from blip3o.errors import DataError
    from blip3o.vision.preprocess import fit_square

    try:
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF"))
    except Exception:  # Pillow's own readers are not the target
        return
    if image.width * image.height > 2**20:
        return
    try:
        assert fit_square(image, 16).size == (16, 16)
    except DataError as error:
        one_line(error)


TARGETS: dict[str, Callable[[bytes], None]] = {
    f.__name__: f
    for f in (strict_json, yaml_settings, assignment, shard, recorded, jsonl, redaction, weights, pictures)
}  # fmt: skip
TASKS: dict[str, Any] = {}


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"target {name!r} is unknown; choose one of {', '.join(TARGETS)}")
    discovery.discover()
    for task in ("geneval", "dpg", "mme", "mmmu", "vqav2", "textvqa"):
        try:
            TASKS[task] = registry.tasks.get(task)()
        except EvalError as error:
            sys.exit(str(error))
    atheris.Setup([sys.argv[0], *sys.argv[2:]], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
