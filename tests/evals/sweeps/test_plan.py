"""The plan: stages and evaluations of every point, what is impossible, and what it costs; nothing is written."""

from __future__ import annotations

import pytest

from evals.errors import ConfigError
from evals.sweeps.plan import plan_sweep
from evals.sweeps.plan_text import lines
from evals.sweeps.planner import BYTES_PER_OUTPUT, SECONDS_PER_OUTPUT

AXES = {"train.target": ["clip", "vae"], "train.objective": ["flow", "mse"], "train.schedule": ["sequential", "joint"]}


def test_impossible_combinations_are_left_out_with_the_reason(planned) -> None:
    made = planned(axes=AXES, seeds=[0, 1])
    assert len(made.points) == 12 and len(made.cells) == 6
    assert len(made.left_out) == 4 and all("target=vae,objective=mse" in point for point in made.left_out)
    assert all("squared error has nothing to aim at" in reason for reason in made.left_out.values())


def test_training_and_evaluation_that_cannot_go_together_are_left_out_too(planned) -> None:
    made = planned(axes={"train.objective": ["flow", "mse"], "run.generation.steps": [None, 8]})
    assert [p.cell for p in made.points] == [
        "objective=flow,steps=null", "objective=flow,steps=8", "objective=mse,steps=null",
    ]  # fmt: skip
    assert list(made.left_out.values()) == ["squared error predicts at once: it has no sampling steps"]
    assert set(made.stages) == {stage for point in made.points for stage in point.stages}


def test_stages_are_shared_where_settings_seed_and_parents_agree(planned) -> None:
    made = planned(axes=AXES, seeds=[0, 1])
    shared = [stage for stage in made.stages.values() if stage.is_shared]
    assert [(s.spec.name, s.spec.seed, len(s.users)) for s in shared] == [
        ("understanding", 0, 3), ("understanding", 1, 3),
    ]  # fmt: skip
    assert len(made.stages) == 2 + 12
    first = made.points[0]
    assert made.train_seconds(first) == pytest.approx(2 * 3 * 0.001)


def test_the_end_is_evaluated_once_unless_it_has_settings_of_its_own(planned) -> None:
    at = {"at": [1, 0.5, 1.0]}
    assert [e.name for e in planned(evaluate=at).points[0].evaluations] == ["step-1", "step-2", "final"]
    with_final = planned(evaluate={**at, "final": {"limit": 12}}).points[0].evaluations
    assert [(e.name, e.config["limit"]) for e in with_final] == [
        ("step-1", 6), ("step-2", 6), ("step-3", 6), ("final", 12),
    ]  # fmt: skip


def test_a_task_may_be_scored_at_the_end_alone(planned) -> None:
    tasks = ["geneval", {"task": "vqa_stickers", "limit": 12, "checkpoints": False}]
    made = planned(evaluate={"tasks": tasks, "at": [1]}).points[0].evaluations
    assert [(e.name, e.task) for e in made] == [
        ("step-1", "geneval"), ("final", "geneval"), ("final", "vqa_stickers"),
    ]  # fmt: skip
    assert "checkpoints" not in made[-1].config
    with pytest.raises(ConfigError, match="every task says `checkpoints: false`"):
        planned(evaluate={"tasks": tasks[1:], "at": [1]})
    # who does not use it has the definition, and so the folder, of before
    used, unused = ({"task": "geneval", "checkpoints": c} for c in (False, True))
    kept = [planned(evaluate={"tasks": [t]}).definition["base"]["evaluate"]["tasks"][0] for t in (used, unused)]
    assert ["checkpoints" in task for task in kept] == [True, False]


def test_seeds_reach_training_and_evaluation_unless_the_base_says_otherwise(planned) -> None:
    made = planned(seeds=[3, 4])
    assert [p.evaluations[0].config["seed"] for p in made.points[:2]] == [3, 4]
    assert {s.spec.seed for s in made.stages.values()} == {3, 4}
    assert planned(seeds=[3, 4], run={"seed": 7}).points[0].evaluations[0].config["seed"] == 7
    with pytest.raises(ConfigError, match="comes to the same training and evaluation as"):
        planned(train=None, run={"seed": 7, "model": "dummy"}, axes={"run.limit": [6, 7]}, seeds=[3, 4])


def test_costs_add_up(planned) -> None:
    made = planned(evaluate={"tasks": ["geneval", {"task": "vqa_stickers", "limit": 12}], "at": [1]})
    load = made.workloads[made.points[0].id]
    assert load.outputs == {"generation": 2 * 6, "understanding": 2 * 12} and load.images == 12
    seconds = 12 * SECONDS_PER_OUTPUT["generation"] + 24 * SECONDS_PER_OUTPUT["understanding"]
    assert load.seconds == pytest.approx(seconds)
    stages = 3 * 200 + 2 * 100  # two exports of 100 bytes each, and one more at a checkpoint of the last stage
    assert made.bytes == 2 * load.bytes + stages and load.bytes > 12 * BYTES_PER_OUTPUT["generation"]
    assert made.images == 24
    assert made.metrics == ("geneval/overall", "vqa_stickers/accuracy")


def test_a_point_without_training_is_checked_as_a_run_would_be(planned) -> None:
    with pytest.raises(ConfigError, match="Unknown model 'nanoo'. Did you mean: nano"):
        planned(train=None, axes={"run.model": ["dummy", "nanoo"]})
    with pytest.raises(ConfigError, match=r"generation.steps = 0 \(from trial.yaml\) is not allowed"):
        planned(train=None, run={"model": "dummy"}, axes={"run.generation.steps": [1, 0]})


def test_a_group_that_a_task_lacks_is_refused_before_its_model_is_trained(planned) -> None:
    with pytest.raises(ConfigError, match="task 'geneval' has no group 'nope'; it has single_object, two_object"):
        planned(run={"metrics": ["group_mean:nope"]})


def test_a_baseline_that_cannot_be_is_refused_with_the_reason(planned) -> None:
    baseline = {"target": "vae", "objective": "mse", "schedule": "joint"}
    with pytest.raises(ConfigError, match="baseline target=vae,objective=mse,schedule=joint is impossible: a VAE's"):
        planned(axes=AXES, baseline=baseline)
    with pytest.raises(ConfigError, match="is left out by exclude"):
        planned(axes=AXES, baseline={**baseline, "target": "clip"}, exclude=[{"target": "clip"}])
    assert planned(axes=AXES, exclude=[{"objective": "flow"}]).grid.baseline.startswith("target=clip,objective=mse")


def test_the_digest_follows_what_moves_a_number_and_nothing_else(planned) -> None:
    digest = planned().digest
    assert planned(max_parallel=3, on_error="stop", executor="slurm", description="x").digest == digest
    others = [planned(seeds=[1]), planned(train={"steps": 4}), planned(run={"limit": 7}), planned(metrics=["geneval"])]
    assert len({digest, *(other.digest for other in others)}) == 5


def test_an_override_that_every_task_shadows_is_noted() -> None:
    made = plan_sweep("guidance", ["base.run.limit=24", "base.run.judge=stickers"])
    assert made.images == 7 * 160 and len(made.notes) == 1
    assert "--set base.run.limit changes nothing" in made.notes[0] and made.notes[0] in " ".join(lines(made))
    made = plan_sweep("guidance", ["base.evaluate.final.limit=24"])
    assert made.images == 7 * 24 and not made.notes
