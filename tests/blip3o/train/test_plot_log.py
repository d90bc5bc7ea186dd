"""Curves of a log: one panel a stage, in the order of training."""

from __future__ import annotations

import json

from PIL import Image

from blip3o.train.plot_log import plot, read_stages


def test_a_stage_trained_twice_has_two_panels(tmp_path):
    rows = []
    for scale in (1.0, 0.1):
        rows.append({"stage": "generation", "config": {}})
        rows += [{"step": s, "loss": scale * 100 / s, "lr": 1e-3} for s in (1, 10, 20)]
        rows.append({"stage": "generation", "finished": True})
    log = tmp_path / "log.jsonl"
    log.write_text("\n".join(map(json.dumps, rows)))
    stages = read_stages([log])
    assert [(name, [r["loss"] for r in own]) for name, own in stages] == [
        ("generation", [100.0, 10.0, 5.0]),
        ("generation", [10.0, 1.0, 0.5]),
    ]
    plot(stages, tmp_path / "one.webp")
    plot(stages[:1], tmp_path / "two.webp")
    wide, narrow = (Image.open(tmp_path / f"{name}.webp").width for name in ("one", "two"))
    assert wide > 1.5 * narrow


def test_scores_on_the_way_have_a_panel_with_their_intervals(tmp_path):
    rows = [{"stage": "generation", "config": {}}]
    for step in (0, 10, 20):
        score = {"geneval/overall": 0.1 + step / 100, "geneval/overall_low": 0.0, "geneval/overall_high": 0.5}
        rows += [{"step": step, "loss": 1.0}, {"step": step, "evaluation": True, "samples": 2, **score}]
    rows.append({"step": 30, "evaluation": True, "hook_failed": "ValueError: no"})
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, rows)))
    stages = read_stages([tmp_path / "log.jsonl"])
    assert [(name, len(own)) for name, own in stages] == [("generation", 3), ("generation: scores", 3)]
    plot(stages, tmp_path / "curves.webp")
    assert Image.open(tmp_path / "curves.webp").width > 500
