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
