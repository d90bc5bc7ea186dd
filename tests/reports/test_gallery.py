from reports import gallery
from reports.gallery import interleaved


def test_groups_take_turns():
    entries = [{"g": g, "n": n} for n, g in enumerate([0, 0, 0, 1, 1, 2])]
    assert [e["n"] for e in interleaved(entries, 3)] == [0, 3, 5, 1, 4, 2]


def test_a_run_too_large_for_a_page_shows_whole_prompts(small_run, monkeypatch):
    from evals.results import load
    from reports.tables import samples_frame

    monkeypatch.setattr(gallery, "MAX_PICTURES", 20)
    samples = samples_frame(load(small_run))
    shown = gallery.build_gallery(small_run, samples)
    assert shown.n_left_out == 40
    assert all(len(sample["o"]) == 2 for sample in shown.data["samples"])
    assert len(shown.data["samples"]) == 10


def test_questions_stand_with_the_prompt_and_answers_with_the_picture():
    details = {
        "questions": {
            "1": {"text": "Is there a dog?", "tuple": "entity - whole (dog)", "parents": []},
            "2": {"text": "Is it red?", "tuple": "attribute - color (dog, red)", "parents": [1]},
            "3": "damaged",
        },
        "answers": {"1": "no", "2": "yes"},
    }
    assert gallery._questions(details["questions"]) == [
        ["1", "Is there a dog?", "entity - whole (dog)", []],
        ["2", "Is it red?", "attribute - color (dog, red)", ["1"]],
    ]
    assert gallery._questions(None) == gallery._questions([1]) == []
    row = {"image_index": 0, "value": 0.0, "kinds": [], "seed": 1}
    row |= dict.fromkeys(("reason", "unscored", "answer", "text"), "")
    assert gallery._output(row, details, [], 100)["q"] == {"1": "no", "2": "yes"}
