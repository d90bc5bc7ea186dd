"""`score --images`, `rescore` and `compare` on the command line, on one small folder of pictures."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from evals.cli.main import main


def call(*args: str | Path) -> Result:
    result = CliRunner().invoke(main, [str(a) for a in args])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A folder of six prompts with two pictures each, in GenEval's layout, and where it came from."""
    root = tmp_path_factory.mktemp("made")
    result = call(
        "run", "--task", "geneval", "--model", "dummy", "--limit", "6", "--num-images", "2",
        "--output", root / "run", "--no-track", "-q",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    shutil.copytree(root / "run" / "images", root / "others")
    return root


@pytest.fixture
def pictures(made: Path, tmp_path: Path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return Path(shutil.copytree(made / "others", tmp_path / "pictures"))


def score(folder: Path, *more: str | Path, judge: str = "dummy", as_json: bool = True) -> Result:
    return call(
        "score", "--task", "geneval", "--images", folder, "--judge", judge, "--limit", "6",
        "--num-images", "2", "--output", "scored", "--no-track", *(["--json"] if as_json else []),
        *more,
    )  # fmt: skip


def digests(root: Path) -> dict[str, str]:
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in root.rglob("*")
        if p.is_file()
    }


def test_a_whole_folder_gets_the_figures_of_the_run_that_made_it(made, pictures) -> None:
    before = digests(pictures)
    result = score(pictures)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    run = json.loads((made / "run" / "results.json").read_text())
    assert found["metrics"] == run["metrics"] and found["problem"] is None
    assert found["model"]["name"] == f"images:{pictures}"
    assert found["model"]["domain"] == "unknown"
    assert found["seed"] == {"seed": None, "mode": None}
    assert digests(pictures) == before
    assert {p.name for p in Path("scored").iterdir()} >= {
        "manifest.json", "outputs.jsonl", "scores.jsonl", "results.json", "report.html", "images",
    }  # fmt: skip
    rows = [json.loads(line) for line in Path("scored/outputs.jsonl").read_text().splitlines()]
    assert [r["seed"] for r in rows] == [None] * 12
    name = f"{rows[0]['sample_id']}/samples/00000.png"
    assert (Path("scored/images") / name).read_bytes() == (pictures / name).read_bytes()
    # The same command reads the finished run; run --model images:DIR is the same door.
    again = score(pictures)
    assert json.loads(again.stdout)["metrics"] == found["metrics"]
    assert len(json.loads(Path("scored/manifest.json").read_text())["sessions"]) == 1
    same = call(
        "run", "--task", "geneval", "--model", f"images:{pictures}", "--judge", "dummy", "--limit",
        "6", "--num-images", "2", "--output", "scored", "--no-track", "-q", "--json",
    )  # fmt: skip
    assert json.loads(same.stdout)["config_sha256"] == found["config_sha256"]


def test_missing_and_broken_pictures_are_counted_named_and_leave_no_overall(pictures) -> None:
    first, second, third, *_ = sorted(pictures.glob("*/samples"))
    (first / "00001.png").unlink()
    whole = (second / "00000.png").read_bytes()
    (second / "00000.png").write_bytes(whole[: len(whole) // 2])
    result = score(pictures)
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    overall = found["metrics"]["overall"]
    assert overall["value"] is None and overall["ci95"] is None
    gone, cut = f"{first.parent.name}/samples/00001.png", f"{second.parent.name}/samples/00000.png"
    assert overall["note"] == f"not given: 2 of 12 outputs are missing or unreadable ({gone}, {cut})"
    assert f"incomplete: 1 of 12 pictures are missing: {gone}" in found["warnings"]
    assert found["counts"]["failed"] == 2 and found["counts"]["scored"] == 10
    rows = [json.loads(line) for line in Path("scored/outputs.jsonl").read_text().splitlines()]
    errors = [r["error"] for r in rows if r["status"] == "error"]
    assert errors[0] == f"PictureError: {gone}: no such picture"
    assert errors[1].startswith(f"PictureError: {cut}: damaged or cut short")
    assert "2 of 12 outputs failed (16.7%, allowed are 1.0%)" in result.stderr
    # Allowing failures changes the exit code, never the overall.
    lenient = score(pictures, "--max-errors", "20%", "--output", "lenient")
    assert lenient.exit_code == 0
    assert json.loads(lenient.stdout)["metrics"]["overall"]["value"] is None
    text = score(pictures, as_json=False)
    assert "overall" in text.stdout and "not given: 2 of 12" in text.stdout


def test_another_picture_in_the_folder_is_another_run(pictures) -> None:
    assert score(pictures).exit_code == 0
    one, two = sorted(pictures.glob("*/samples/00000.png"))[:2]
    one.write_bytes(two.read_bytes())
    result = score(pictures)
    assert result.exit_code == 2
    assert "holds a run of another configuration (model.weights_sha256" in result.stderr


def test_rewritten_prompts_are_marked(pictures) -> None:
    path = sorted(pictures.glob("*/metadata.jsonl"))[0]
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "prompt": "a splendid photo"}))
    refused = score(pictures)
    assert refused.exit_code == 2 and "--rewritten-prompts" in refused.stderr
    result = score(pictures, "--rewritten-prompts")
    assert result.exit_code == 0
    assert any("1 of 6 folders were rewritten" in d for d in json.loads(result.stdout)["deviations"])


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--judge", "auto"), "--judge auto has no answer for"),
        (("--judge", "stickrs"), "Did you mean: stickers"),
        (("--judge", "dummy", "--compat", "lmms-eval"), "--compat is for recorded answers"),
        (("--judge", "dummy", "--output", "pictures/run"), "lie in one another"),
        (("--judge", "dummy", "--output", "."), "lie in one another"),
        (("--judge", "dummy", "--num-images", "0"), "num_images = 0"),
        (("--judge", "dummy", "--limit", "-1"), "limit = -1"),
        ((), "score --images needs --judge"),
    ],
)
def test_bad_use_ends_in_one_line_and_writes_nothing(pictures, args, said) -> None:
    before = digests(pictures)
    result = call("score", "--task", "geneval", "--images", "pictures", "--no-track", *args)
    assert result.exit_code == 2 and result.stdout == ""
    assert said in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert digests(pictures) == before
    assert [p.name for p in Path().iterdir()] == ["pictures"]


def test_a_judge_that_answers_nothing_cannot_judge_dense_prompts(pictures) -> None:
    result = call("score", "--task", "dpg", "--images", "pictures", "--judge", "sticker-features")
    assert result.exit_code == 2
    assert "judge 'sticker-features' answers no questions about pictures" in result.stderr


def test_a_run_folder_is_sent_to_rescore(made) -> None:
    result = call("score", "--task", "geneval", "--images", made / "run", "--judge", "dummy")
    assert result.exit_code == 2 and "blip3o-eval rescore" in result.stderr


def test_rescore_and_compare_from_the_command_line(made, pictures) -> None:
    run = made / "run"
    result = call(
        "rescore", run, "--judge", "dummy:accuracy=0.1", "--output", "again", "--no-track", "--json"
    )
    assert result.exit_code == 0, result.output
    assert f"reused 12 outputs of {run}" in result.stderr
    found = json.loads(result.stdout)
    assert found["judge"]["settings"] == {"accuracy": 0.1} and found["parent"]["reused"] == 12
    refused = call("compare", run, "again")
    assert refused.exit_code == 2 and "judge settings" in refused.stderr
    assert score(pictures).exit_code == 0
    text = call("compare", run, "scored")
    assert text.exit_code == 0, text.output
    overall = next(line for line in text.stdout.splitlines() if line.startswith("overall"))
    assert overall.split()[1:4] == [overall.split()[1], overall.split()[1], "+0.000"]
    assert "TEST DOUBLE" in text.stdout and "Holm: corrected for the 7 tests above" in text.stdout
    single = call("compare", run, "scored", "--metric", "overall").stdout
    assert "Holm: corrected for the 1 test above." in single
    data = json.loads(call("compare", run, "scored", "--json").stdout)
    assert data["comparisons"][0]["metrics"]["overall"]["difference"] == 0.0
    assert data["comparisons"][0]["shared_outputs"] == 12
    assert call("compare", run).exit_code == 2
    assert call("compare").exit_code == 2


def test_nano_judged_again_through_every_door(tmp_path, monkeypatch) -> None:
    """The bundled model and judge: run, the folder of its pictures, its judge once more, the comparison."""
    monkeypatch.chdir(tmp_path)
    settings = ("--limit", "6", "--num-images", "1")
    run = call("run", "--task", "geneval", *settings, "--steps", "4", "--output", "run", "--no-track",
               "-q", "--json")  # fmt: skip
    assert run.exit_code == 0, run.output
    scored = call("score", "--task", "geneval", "--images", "run/images", "--judge", "stickers",
                  *settings, "--output", "scored", "--no-track", "-q", "--json")  # fmt: skip
    assert scored.exit_code == 0, scored.output
    first, second = json.loads(run.stdout), json.loads(scored.stdout)
    assert second["metrics"] == first["metrics"]
    assert second["judge"] == first["judge"] and "made for pictures" in second["warnings"][0]
    again = call("rescore", "run", "--judge", "stickers", "--output", "again", "--no-track", "--json")
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["metrics"] == first["metrics"]
    compared = json.loads(call("compare", "run", "scored", "again", "--json").stdout)
    assert [c["metrics"]["overall"]["p_value"] for c in compared["comparisons"]] == [1.0, 1.0]


def test_every_option_has_its_environment_twin(pictures, monkeypatch) -> None:
    twins = {
        "SCORE_TASK": "geneval", "SCORE_IMAGES": str(pictures), "SCORE_JUDGE": "auto",
        "POWER_POWER": "0.9", "POWER_JSON": "1", "COMPARE_JSON": "1", "RESCORE_JUDGE": "stickrs",
    }  # fmt: skip
    for name, value in twins.items():
        monkeypatch.setenv(f"BLIP3O_EVAL_{name}", value)
    assert "--judge auto has no answer" in call("score").stderr
    assert json.loads(call("power").stdout)["power"] == 0.9


def test_tasks_with_data_of_the_users_take_it_from_the_command_line(tmp_path: Path, monkeypatch) -> None:
    """FID of a folder against a caption list's pictures, with features that need no download."""
    import numpy as np
    from PIL import Image

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    draw = np.random.default_rng(0)
    (tmp_path / "data" / "images").mkdir(parents=True)
    lines = []
    for n in range(8):
        lines.append(json.dumps({"id": n, "prompt": f"prompt {n}"}))
        picture = Image.fromarray(draw.integers(0, 256, (24, 24, 3), dtype=np.uint8))
        picture.save(tmp_path / "data" / "images" / f"{n}.png")
        place = tmp_path / "pictures" / f"{n:05d}" / "samples"
        place.mkdir(parents=True)
        (place.parent / "metadata.jsonl").write_text(json.dumps({"prompt": f"prompt {n}"}))
        picture.save(place / "0000.png")
    (tmp_path / "data" / "captions.jsonl").write_text("\n".join(lines))
    arguments = ["score", "--task", "fid", "--images", "pictures", "--judge", "sticker-features", "--no-track", "-q"]
    without = call(*arguments)
    assert without.exit_code == 2 and "give --data DIR" in without.output
    result = call(*arguments, "--data", "data", "--set", "judge.args.resize=legacy", "--json")
    assert result.exit_code == 0, result.output
    figures = json.loads(result.output)["metrics"]
    assert figures["fd-stickers-legacy"]["value"] == pytest.approx(0, abs=1e-6) and figures["recall-stickers-legacy"]
    wrong = call(*arguments, "--data", "data", "--set", "model.args.x=1")
    assert wrong.exit_code == 2 and "score --images changes the judge only" in wrong.output
    recorded = call("score", "--task", "geneval", "--detections", "x.jsonl", "--data", "data")
    assert recorded.exit_code == 2 and "--data belongs to --images" in recorded.output
