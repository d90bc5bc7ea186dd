"""The settings of a run on a command line: options, and the layers that they, files and the environment make.

``run`` and ``config show`` share them, so that the one shows what the other would do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

PREFIX = "BLIP3O_EVAL_RUN"  # environment twins of the settings, whichever command reads them

# Parameter of the command -> key of RunConfig.
KEYS = {
    "task": "task",
    "data": "data",
    "model": "model.name",
    "judge": "judge.name",
    "limit": "limit",
    "num_images": "num_images",
    "seed": "seed",
    "seed_mode": "seed_mode",
    "batch_size": "batch_size",
    "device": "model.device",
    "dtype": "model.dtype",
    "revision": "model.revision",
    "guidance_scale": "generation.guidance_scale",
    "steps": "generation.steps",
    "height": "generation.height",
    "width": "generation.width",
    "max_errors": "max_errors",
    "experiment": "tracking.experiment",
    "tracking_uri": "tracking.tracking_uri",
}

Layers = list[tuple[str | Mapping[str, str], dict[str, Any]]]


class NumberOrAuto(click.ParamType):
    name = "integer or auto"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "auto" or isinstance(value, int):
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"{value!r} is neither a whole number nor 'auto'", param, ctx)


class Share(click.ParamType):
    name = "share"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if isinstance(value, float):
            return value
        try:
            return float(value[:-1]) / 100 if value.endswith("%") else float(value)
        except ValueError:
            self.fail(f"{value!r} is not a share such as 0.01 or 1%", param, ctx)


# fmt: off
_OPTIONS = (
    click.option("--task", metavar="T[,T]", help="Task, or several with commas between."),
    click.option("--model", metavar="NAME", help="Model: nano, a folder or hub id of BLIP3-o weights, diffusers:ID, openai:MODEL, images:DIR.  [default: nano]"),
    click.option("--judge", metavar="NAME", help="Judge; auto takes that of the model's domain.  [default: auto]"),
    click.option("--limit", type=int, metavar="N", help="Only N prompts or questions, spread evenly over the groups; marked partial."),
    click.option("--num-images", type=int, metavar="N", help="Pictures per prompt.  [default: the task's own, GenEval 4]"),
    click.option("--seed", type=int, metavar="N", help="Run seed.  [default: 42]"),
    click.option("--seed-mode", type=click.Choice(["sample", "upstream"]), help="sample: a seed per picture; upstream: the seed set again before each prompt.  [default: sample]"),
    click.option("--batch-size", type=NumberOrAuto(), metavar="N|auto", help="Pictures or questions per model call.  [default: auto]"),
    click.option("--device", metavar="D", help="auto, cpu, cuda, cuda:N or mps.  [default: auto]"),
    click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="Precision.  [default: auto, the weights' own]"),
    click.option("--guidance-scale", type=float, metavar="G", help="Classifier-free guidance.  [default: the model's]"),
    click.option("--steps", type=int, metavar="N", help="Sampling steps.  [default: the model's]"),
    click.option("--height", type=int, metavar="PX", help="Picture height in pixels.  [default: the model's]"),
    click.option("--width", type=int, metavar="PX", help="Picture width in pixels.  [default: the model's]"),
    click.option("--revision", metavar="R", help="Commit or tag of a hub id."),
    click.option("--data", type=click.Path(), metavar="PATH", help="File or folder with the task's data; for clipscore and vqascore also partiprompts or t2i_compbench.  [default: BLIP3O_EVAL_DATA, then the hub's cache]"),
    click.option("--metric", type=str, multiple=True, metavar="NAME", help="A further figure, by its registered name; may be repeated."),
    click.option("--config", type=click.Path(), multiple=True, metavar="FILE", help="YAML or JSON settings; may be repeated, later ones win."),
    click.option("--set", multiple=True, metavar="a.b=c", help="One setting, such as judge.batch_size=8; may be repeated."),
    click.option("--max-errors", type=Share(), metavar="SHARE", help="Share of outputs that may fail before the exit code is 1.  [default: 1%]"),
    click.option("--experiment", metavar="E", help="MLflow experiment.  [default: blip3o-eval]"),
    click.option("--tracking-uri", metavar="U", help="MLflow tracking URI.  [default: MLFLOW_TRACKING_URI or runs/mlflow.db]"),
    click.option("--no-track", is_flag=True, help="Do not log to MLflow."),
    click.option("--tag", multiple=True, metavar="k=v", help="Tag of the MLflow run; may be repeated."),
)
# fmt: on


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: adds every option that is a setting of a run."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def layers_from(ctx: click.Context) -> Layers:
    """Files, environment, ``--set`` and flags as layers for ``evals.config.resolve``, weakest first.

    Raises: UsageError and its children, naming file and line.
    """
    from evals.config import set_key
    from evals.settings.files import parse_assignment, read_layer

    params = ctx.params
    layers: Layers = []
    for path in params["config"]:
        layer, lines = read_layer(path)
        layers.append((lines, layer))
    environment: tuple[dict[str, str], dict[str, Any]] = ({}, {})
    flags: tuple[dict[str, str], dict[str, Any]] = ({}, {})

    def give(parameter: str, key: str, value: Any) -> None:
        source = ctx.get_parameter_source(parameter)
        is_flag = source is None or source.name != "ENVIRONMENT"
        origins, layer = flags if is_flag else environment
        set_key(layer, key, value)
        option = parameter.replace("_", "-")
        origins[key] = (
            f"flag --{option}" if is_flag else f"environment {PREFIX}_{parameter.upper()}"
        )

    for parameter, key in KEYS.items():
        if params[parameter] is not None:
            give(parameter, key, params[parameter])
    if params["no_track"]:
        give("no_track", "tracking.enabled", False)
    if params["metric"]:
        give("metric", "metrics", list(params["metric"]))
    for text in params["tag"]:
        name, value = parse_tag(text)
        give("tag", f"tracking.tags.{name}", value)
    assigned: dict[str, Any] = {}
    for text in params["set"]:
        set_key(assigned, *parse_assignment(text))
    return [*layers, environment, ("--set", assigned), flags]


def task_names(ctx: click.Context, layers: Layers) -> list[str]:
    """The tasks that the strongest layer names; ``task: a,b`` in a file counts as much as ``--task a,b``.

    Raises: UsageError if there is none, or one stands twice.
    """
    from evals.errors import UsageError, shown

    given = next((layer["task"] for _, layer in reversed(layers) if "task" in layer), None)
    if given is None:
        raise click.UsageError(
            "Missing option '--task' (a key `task` in a --config file also does).", ctx
        )
    parts = given if isinstance(given, list) else str(given).split(",")
    names = [name.strip() for name in map(str, parts) if name.strip()]
    if not names or len(set(names)) != len(names):
        raise UsageError(f"--task {shown(given)}: give task names with commas between, each once")
    return names


def parse_tag(text: str) -> tuple[str, str]:
    from evals.errors import UsageError, shown

    name, equals, value = text.partition("=")
    if not equals or not name or "." in name:
        raise UsageError(f"--tag {shown(text)}: give name=value, without dots in the name")
    return name, value


def judge_settings(assignments: Sequence[str], command: str) -> dict[str, Any]:
    """``--set`` of a command that changes the judge only, as nested settings. Raises UsageError for other keys."""
    from evals.config import set_key
    from evals.errors import UsageError, shown
    from evals.settings.files import parse_assignment

    settings: dict[str, Any] = {}
    for text in assignments:
        key, value = parse_assignment(text)
        if not key.startswith("judge.args."):
            raise UsageError(
                f"--set {shown(key)}: {command} changes the judge only, give judge.args.NAME=VALUE"
            )
        set_key(settings, key, value)
    return settings
