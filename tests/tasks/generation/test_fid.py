"""The tasks fid and fid_stickers: layouts, figures equal to those of the folders, resume, and what is refused."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from evals import evaluate
from evals.api import ModelOptions
from evals.errors import InputError, MissingRequirementError, UsageError
from evals.judges.features import create_stickers
from tasks.generation import fid_data
from tasks.generation.fid import Fid
from tasks.generation.fid_stickers import FidStickers


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("BLIP3O_EVAL_DATA", raising=False)


def write_pictures(folder, names, size=24, seed=0):
    rng = np.random.default_rng(seed)
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)


@pytest.fixture
def caption_list(tmp_path):
    root = tmp_path / "captions"
    write_pictures(root / "images", [f"{i}.png" for i in range(12)])
    lines = [json.dumps({"id": i, "prompt": f"thing {i}"}) for i in range(24)]
    (root / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def mjhq(tmp_path):
    root, meta = tmp_path / "mjhq", {}
    for category in ("food", "animals"):
        for i in range(6):
            meta[f"{category}{i}"] = {"category": category, "prompt": f"{category} number {i}"}
    write_pictures(root / "mjhq30k_imgs", [f"{r['category']}/{id}.jpg" for id, r in meta.items()])
    (root / "meta_data.json").write_text(json.dumps(meta))
    return root


def run(task, data=None, judge="sticker-features", output=None, **settings):
    settings = {"tracking__enabled": False, **settings}
    if data is not None:
        settings["data"] = str(data)
    return evaluate(task, "dummy", judge=judge, output=output, quiet=True, report=False, **settings)


def figures(a_run):
    return a_run.results["metrics"]


def test_a_run_has_the_figures_of_its_pictures_folder(caption_list, tmp_path):
    from evals.metrics.set_figures import all_figures
    from evals.pictures.sets import picture_set, reference_of

    task = Fid(caption_list)
    made = evaluate(task, "dummy", judge="sticker-features", output=tmp_path / "run", data=str(caption_list),
                    quiet=True, report=False, tracking__enabled=False)  # fmt: skip
    judge = create_stickers("", ModelOptions(device="cpu"))
    found = picture_set(tmp_path / "run" / "images", judge, is_quiet=True)
    expected = all_figures(found, reference_of(caption_list / "images", judge, is_quiet=True))
    for figure in expected:
        assert figures(made)[figure.name]["value"] == pytest.approx(figure.value, rel=1e-4, abs=1e-6)
    values = [row["value"] for row in map(json.loads, open(tmp_path / "run" / "scores.jsonl"))]
    assert np.mean(values) == figures(made)["precision-stickers"]["value"]
    assert figures(made)["is"]["value"] is None


def test_batches_and_a_second_process_change_nothing(caption_list, tmp_path):
    one = run("fid", caption_list, output=tmp_path / "a", judge__batch_size=1)
    many = run("fid", caption_list, output=tmp_path / "b", judge__batch_size=24)
    for name, figure in figures(one).items():
        if name == "is":  # no classifier whose classes count
            assert figure["value"] is None
            continue
        assert figure["value"] == pytest.approx(figures(many)[name]["value"], rel=1e-4, abs=1e-6)
    # The figures come from the scores on disk: without them, and with a fresh task, they are the same again.
    (tmp_path / "a" / "results.json").unlink()
    assert figures(run("fid", caption_list, output=tmp_path / "a", judge__batch_size=1)) == figures(one)


def test_mjhq_has_a_distance_per_category(mjhq, tmp_path):
    from evals.metrics.frechet import frechet_distance, moments_of

    made = run("fid", mjhq, output=tmp_path / "run", num_images=2)
    assert made.results["groups"].keys() == {"animals", "food"}
    judge = create_stickers("", ModelOptions(device="cpu"))
    ours, theirs = [], []
    outputs = [json.loads(line) for line in open(tmp_path / "run" / "outputs.jsonl")]
    for row in outputs:
        if row["group"] == "food":
            ours.append(Image.open(tmp_path / "run" / row["path"]))
    theirs = [Image.open(mjhq / "mjhq30k_imgs" / "food" / f"food{i}.jpg") for i in range(6)]
    expected = frechet_distance(*(moments_of(judge.extract(x).features).compute() for x in (ours, theirs)))
    assert figures(made)["fd-stickers:food"]["value"] == pytest.approx(expected, rel=1e-3)
    assert figures(made)["fd-stickers:food"]["n"] == 12


def test_a_statistics_file_takes_the_place_of_the_pictures(caption_list, tmp_path):
    from click.testing import CliRunner

    from evals.cli.fid import command

    with_pictures = run("fid", caption_list, output=tmp_path / "a")
    file = caption_list / "reference.safetensors"
    arguments = ["statistics", str(caption_list / "images"), "--output", str(file), "-q"]
    done = CliRunner().invoke(command, [*arguments, "--features", "sticker-features"], catch_exceptions=False)
    assert done.exit_code == 0 and "12 pictures, recipe" in done.output
    shutil.rmtree(caption_list / "images")
    with_file = run("fid", caption_list, output=tmp_path / "b")
    for name, figure in figures(with_pictures).items():
        assert figure["value"] == figures(with_file)[name]["value"]
    with pytest.raises(UsageError, match="was made by another recipe .resize 'clean', not 'legacy'"):
        evaluate(Fid(caption_list), "dummy", judge=create_stickers("", ModelOptions(extra={"resize": "legacy"})),
                 output=tmp_path / "c", quiet=True, report=False, tracking__enabled=False)  # fmt: skip


def test_the_command_scores_folders_and_refuses_other_recipes(caption_list, tmp_path):
    from click.testing import CliRunner

    from evals.cli.main import main

    write_pictures(tmp_path / "made", [f"{i}.png" for i in range(30)], seed=5)
    reference = caption_list / "images"
    base = ["fid", "score", str(tmp_path / "made"), str(reference), "--features", "sticker-features", "-q"]
    done = CliRunner().invoke(main, [*base, "--json"])
    assert done.exit_code == 0, done.output
    record = json.loads(done.stdout)
    assert record["reference"]["n"] == 12 and record["recipe"]["resize"] == "clean"
    assert list(record["metrics"])[:2] == ["fd-stickers", "kid-stickers"]
    assert record["metrics"]["kid-stickers"]["ci95"] is not None
    same = CliRunner().invoke(main, ["fid", "score", str(reference), *base[3:], "--json"])
    assert json.loads(same.stdout)["metrics"]["fd-stickers"]["value"] == pytest.approx(0, abs=1e-6)
    file = tmp_path / "s.safetensors"
    CliRunner().invoke(main, ["fid", "statistics", str(reference), "--output", str(file), *base[4:]])
    assert file.exists()
    other = CliRunner().invoke(main, [*base[:3], str(file), *base[4:], "--resize", "legacy"])
    assert other.exit_code == 2 and "was made by another recipe" in other.output
    drawn = CliRunner().invoke(main, [*base, "--json", "--bootstrap", "100"])
    kid = json.loads(drawn.stdout)["metrics"]["kid-stickers"]
    assert kid["method"] == "centred bootstrap" and kid["value"] == record["metrics"]["kid-stickers"]["value"]
    table = CliRunner().invoke(main, base)
    assert "30 pictures against 12 of images (recipe" in table.output and "biased upwards" in table.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fid", "score", "x", "x", "--features", "stickers"], "'stickers' gives no features; known are: inception"),
        (["fid", "score", "nowhere", "nowhere", "--features", "sticker-features"], "nowhere: is neither"),
        (["fid", "statistics", ".", "--output", "x.npz"], "must end in .safetensors"),
    ],
)
def test_the_command_says_in_one_line_what_is_wrong(arguments, message, tmp_path, monkeypatch):
    from click.testing import CliRunner

    from evals.cli.main import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    Image.new("RGB", (8, 8)).save("x/a.png")
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2 and message in done.output


def test_a_damaged_picture_is_refused_by_name(caption_list):
    (caption_list / "images" / "3.png").write_bytes(b"no picture")
    task = Fid(caption_list)
    with pytest.raises(InputError, match=r"3\.png: is no picture"):
        task.make_reference(create_stickers("", ModelOptions(device="cpu")))


def coco(tmp_path, n=6):
    root = tmp_path / "coco"
    images = [{"id": i, "file_name": f"COCO_val2014_{i}.jpg"} for i in range(n)]
    notes = [{"id": 100 + 10 * i + k, "image_id": i, "caption": f"picture {i}\n{k}"} for i in range(n) for k in (0, 1)]
    (root / "annotations").mkdir(parents=True)
    (root / "annotations" / "captions_val2014.json").write_text(
        json.dumps({"images": images, "annotations": notes})
    )
    write_pictures(root / "val2014", [image["file_name"] for image in images])
    return root


def test_coco_captions_by_list_and_by_draw(tmp_path):
    root = coco(tmp_path)
    drawn = fid_data.read(root)
    assert [s.id for s in drawn.samples] == ["100", "110", "120", "130", "140", "150"]  # one of each picture
    (root / "caption_ids.txt").write_bytes(b"\xef\xbb\xbf131\r\n\r\n100\r\n101\r\n")
    listed = fid_data.read(root)
    assert [(s.id, s.prompt) for s in listed.samples] == [
        ("131", "picture 3 1"), ("100", "picture 0 0"), ("101", "picture 0 1"),
    ]  # fmt: skip
    assert [p.name for p in listed.pictures] == ["COCO_val2014_3.jpg", "COCO_val2014_0.jpg"]
    assert listed.digest() != drawn.digest()
    (root / "caption_ids.txt").write_text("100\n7\n")
    with pytest.raises(InputError, match=r"caption_ids\.txt:2: .* has no caption 7"):
        fid_data.read(root)
    (root / "caption_ids.txt").write_text("100\nabc\n")
    with pytest.raises(InputError, match=r"caption_ids\.txt:2: 'abc' is no annotation id"):
        fid_data.read(root)


def test_missing_reference_pictures_are_counted_and_named(mjhq):
    (mjhq / "mjhq30k_imgs" / "food" / "food2.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of 12 reference pictures are missing, such as mjhq30k_imgs/food/food2"):
        fid_data.read(mjhq)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (['{"id": 1, "prompt": "a"}', '{"id": 1, "prompt": "b"}'], "id '1' stands twice"),
        (['{"id": 1}'], r"captions\.jsonl:1: prompt must be a text"),
        (['{"prompt": "a"}'], r"captions\.jsonl:1: id must be"),
        (['{"id": "../x", "prompt": "a"}'], "id must be a number or a text without slashes"),
    ],
)
def test_caption_lists_that_do_not_read_are_refused(caption_list, lines, message):
    (caption_list / "captions.jsonl").write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match=message):
        fid_data.read(caption_list)


def test_caption_lists_of_other_systems_are_read(caption_list):
    """A byte order mark, Windows line ends, blank lines, no line end at the end; markup is text."""
    text = '{"id": 1, "prompt": "a <b>cat</b>"}\r\n\r\n{"id": "2", "prompt": "two\\n dogs "}'
    (caption_list / "captions.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    samples = fid_data.read(caption_list).samples
    assert [(s.id, s.prompt) for s in samples] == [("1", "a <b>cat</b>"), ("2", "two dogs")]
    (caption_list / "captions.jsonl").write_bytes(text.encode() + b"\r\n\n{broken")
    with pytest.raises(InputError, match=r"captions\.jsonl:5: "):
        fid_data.read(caption_list)
    (caption_list / "captions.jsonl").write_bytes(b"\n")
    with pytest.raises(InputError, match="holds no lines"):
        fid_data.read(caption_list)


def test_a_folder_of_no_layout_and_no_data_at_all(tmp_path):
    with pytest.raises(InputError, match="holds none of meta_data.json"):
        fid_data.read(tmp_path)
    with pytest.raises(InputError, match="is no folder"):
        fid_data.read(tmp_path / "x")
    with pytest.raises(MissingRequirementError, match="give --data DIR"):
        Fid().samples()


def test_a_judge_without_features_is_refused(caption_list, tmp_path):
    with pytest.raises(UsageError, match="judge 'dummy' takes no features of pictures, which task 'fid' needs"):
        run("fid", caption_list, judge="dummy", output=tmp_path / "run")




@pytest.fixture
def few_references(monkeypatch):
    monkeypatch.setattr("tasks.generation.fid_stickers.REFERENCES", 200)


def test_sticker_scenes_are_near_themselves_and_noise_is_far(few_references):
    from evals.metrics.kernel import kernel_distance

    judge = create_stickers("", ModelOptions(device="cpu"))
    task = FidStickers()
    reference = task.make_reference(judge)
    from blip3o.stickers import SceneConfig, make_scene, render

    world = SceneConfig.level("easy")
    real = [Image.fromarray(render(make_scene("test", i, world)).image) for i in range(150)]
    blurred = [image.resize((12, 12)).resize((64, 64)) for image in real]
    rng = np.random.default_rng(0)
    noise = [Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)) for _ in range(50)]
    distances = [
        kernel_distance(judge.extract(images).features, reference.features, 10) for images in (real, blurred, noise)
    ]
    assert abs(distances[0]) < 0.2 * distances[1] < 0.02 * distances[2]


def test_prompts_and_reference_scenes_differ_and_are_stable(few_references):
    task = FidStickers()
    samples = task.samples()
    assert len({s.id for s in samples}) == 1000 and {s.group for s in samples} == set(task.groups)
    assert task.digest() == FidStickers().digest()
    from tasks.generation import fid_stickers

    assert fid_stickers.FIRST_REFERENCE >= len(samples)


def test_a_cleared_cache_does_no_harm_to_stickers(few_references, tmp_path):
    made = run("fid_stickers", output=tmp_path / "run", limit=12)
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "run" / "results.json").unlink()
    assert figures(run("fid_stickers", output=tmp_path / "run", limit=12)) == figures(made)


def test_a_cleared_cache_is_named_where_it_cannot_be_filled(caption_list, tmp_path):
    run("fid", caption_list, output=tmp_path / "run")
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "run" / "results.json").unlink()
    with pytest.raises(MissingRequirementError, match="reference statistics of these scores are gone"):
        run("fid", caption_list, output=tmp_path / "run")


def test_frames_and_pages_do_not_carry_the_features(few_references, tmp_path):
    from evals.frames import sample_rows

    made = run("fid_stickers", output=tmp_path / "run", limit=12)
    rows = sample_rows(made.data)
    assert len(rows) == 12 and all(set(row["details"]) == {"reference"} for row in rows)
