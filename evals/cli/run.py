"""``blip3o-eval run``: options -> RunConfig -> ``evals.evaluate`` -> a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from evals.config import RunConfig
    from evals.runner import Run

# Parameter of the command -> key of RunConfig. Flags and environment twins go through this.
KEYS = {
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
@click.command("run")
@click.option("--task", required=True, metavar="T[,T]", help="Task, or several with commas between.")
@click.option("--model", metavar="NAME", help="Model: nano, a folder or hub id of BLIP3-o weights.  [default: nano]")
@click.option("--judge", metavar="NAME", help="Judge; auto takes that of the model's domain.  [default: auto]")
@click.option("--output", type=click.Path(), metavar="DIR", help="Run folder.  [default: runs/<task>-<model>-<configuration>]")
@click.option("--limit", type=int, metavar="N", help="Only N prompts or questions, spread evenly over the groups; marked partial.")
@click.option("--num-images", type=int, metavar="N", help="Pictures per prompt.  [default: the task's own, GenEval 4]")
@click.option("--seed", type=int, metavar="N", help="Run seed.  [default: 42]")
@click.option("--seed-mode", type=click.Choice(["sample", "upstream"]), help="sample: a seed per picture; upstream: the seed set again before each prompt.  [default: sample]")
@click.option("--batch-size", type=NumberOrAuto(), metavar="N|auto", help="Pictures or questions per model call.  [default: auto]")
@click.option("--device", metavar="D", help="auto, cpu, cuda, cuda:N or mps.  [default: auto]")
@click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="Precision.  [default: auto, the weights' own]")
@click.option("--guidance-scale", type=float, metavar="G", help="Classifier-free guidance.  [default: the model's]")
@click.option("--steps", type=int, metavar="N", help="Sampling steps.  [default: the model's]")
@click.option("--height", type=int, metavar="PX", help="Picture height in pixels.  [default: the model's]")
@click.option("--width", type=int, metavar="PX", help="Picture width in pixels.  [default: the model's]")
@click.option("--revision", metavar="R", help="Commit or tag of a hub id.")
@click.option("--shard", metavar="i/n", help="Do part i (from 0) of n; the last one to finish merges and scores.")
@click.option("--config", "config_files", type=click.Path(), multiple=True, metavar="FILE", help="YAML or JSON settings; may be repeated, later ones win.")
@click.option("--set", "assignments", multiple=True, metavar="a.b=c", help="One setting, such as judge.batch_size=8; may be repeated.")
@click.option("--max-errors", type=Share(), metavar="SHARE", help="Share of outputs that may fail before the exit code is 1.  [default: 1%]")
@click.option("--fresh", is_flag=True, help="Remove what is in the run folder and start over.")
@click.option("--retry-errors", is_flag=True, help="Make outputs that ended in an error again.")
@click.option("--experiment", metavar="E", help="MLflow experiment.  [default: blip3o-eval]")
@click.option("--tracking-uri", metavar="U", help="MLflow tracking URI.  [default: MLFLOW_TRACKING_URI or runs/mlflow.db]")
@click.option("--no-track", is_flag=True, help="Do not log to MLflow.")
@click.option("--tag", "tags", multiple=True, metavar="k=v", help="Tag of the MLflow run; may be repeated.")
@click.option("--json", "as_json", is_flag=True, help="Print results as one JSON object a task.")
@click.option("-v", "--verbose", is_flag=True, help="Say more on stderr.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.pass_context
# fmt: on
def command(ctx: click.Context, task: str, **options: Any) -> None:
    """Run one or more tasks on a model: generate, judge, score, report.

    The same command resumes an interrupted run, and only reads a finished one. Settings are taken
    from, later ones winning: defaults, --config files, environment, --set, these flags.
    """
    from pathlib import Path

    from evals.errors import EvalError, UsageError
    from evals.lookup import find_judge, find_model, find_task
    from evals.plan import parse_shard
    from evals.runner import evaluate

    wait_politely()
    set_up_logging(options["verbose"], options["quiet"])
    names = [name.strip() for name in task.split(",") if name.strip()]
    if not names or len(set(names)) != len(names):
        raise UsageError(f"--task {task!r}: give task names with commas between, each once")
    configs = {name: config_from(ctx, name) for name in names}
    shard = parse_shard(options["shard"]) if options["shard"] else shard_of_launcher()
    # Everything that can be missing is named before the first picture of the first task.
    tasks = {name: find_task(name) for name in names}
    model = find_model(configs[names[0]])
    judges = {name: find_judge(configs[name], tasks[name], model) for name in names}
    output = Path(options["output"]) if options["output"] else None
    problems = []
    for name, found in tasks.items():
        try:
            run = evaluate(
                found,
                model,
                judge=judges[name],
                config=configs[name],
                output=output / name if output is not None and len(names) > 1 else output,
                shard=shard,
                fresh=options["fresh"],
                retry_errors=options["retry_errors"],
                quiet=options["quiet"],
            )
        except KeyboardInterrupt:
            raise EvalError("interrupted; the same command goes on from here") from None
        show(run, options["as_json"])
        if run.problem is not None:
            problems.append(run.problem)
    if problems:
        raise EvalError("\n".join(problems))


def wait_politely() -> None:
    """Let idle OpenMP threads sleep instead of spin; call before torch is imported.

    Spinning threads take the cores from those that still compute: on a busy machine of two cores the
    bundled model needed about 8 s a picture with the default and 0.9 s with this. The user's own setting
    of OMP_WAIT_POLICY wins.
    """
    import os

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def config_from(ctx: click.Context, task: str) -> RunConfig:
    """The layers of the command line, merged. Raises UsageError and its children."""
    from evals.config import parse_assignment, read_config_file, resolve, set_key

    params = ctx.params
    layers: list[tuple[str, dict[str, Any]]] = [("the command", {"task": task})]
    layers += [(f"--config {path}", read_config_file(path)) for path in params["config_files"]]
    given = {"ENVIRONMENT": {}, "COMMANDLINE": {}}  # type: dict[str, dict[str, Any]]
    for name, key in KEYS.items():
        source = ctx.get_parameter_source(name)
        if source is not None and source.name in given and params[name] is not None:
            set_key(given[source.name], key, params[name])
    if params["no_track"]:
        source = ctx.get_parameter_source("no_track")
        set_key(given[source.name if source else "COMMANDLINE"], "tracking.enabled", False)
    assigned: dict[str, Any] = {}
    for text in params["assignments"]:
        set_key(assigned, *parse_assignment(text))
    for text in params["tags"]:
        name, value = parse_tag(text)
        set_key(given["COMMANDLINE"], f"tracking.tags.{name}", value)
    layers += [("the environment", given["ENVIRONMENT"]), ("--set", assigned)]
    layers.append(("the command line", given["COMMANDLINE"]))
    layers.append(("the command", {"task": task}))
    return resolve(layers)[0]


def parse_tag(text: str) -> tuple[str, str]:
    from evals.errors import UsageError

    name, equals, value = text.partition("=")
    if not equals or not name or "." in name:
        raise UsageError(f"--tag {text!r}: give name=value, without dots in the name")
    return name, value


def shard_of_launcher() -> tuple[int, int]:
    """(rank, world size) under torchrun, else the whole."""
    import os

    from evals.plan import parse_shard

    rank, size = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "")
    return parse_shard(f"{rank}/{size}") if rank and size else (0, 1)


def set_up_logging(is_verbose: bool, is_quiet: bool) -> None:
    import logging

    level = logging.DEBUG if is_verbose else logging.ERROR if is_quiet else logging.WARNING
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    for name in ("evals", "blip3o", "tasks", "reports"):
        logger = logging.getLogger(name)
        logger.setLevel(level)
        if not logger.handlers:
            logger.addHandler(handler)


def show(run: Run, as_json: bool) -> None:
    """Print a run: one JSON object, or a table of its metrics."""
    import json

    if as_json:
        where = {"run": str(run.root), "report": run.report_path and str(run.report_path)}
        body = dict(run.results) if run.results is not None and not run.pending else {}
        click.echo(json.dumps({**where, "pending": run.pending, "problem": run.problem, **body}))
        return
    if run.pending or run.results is None:
        what = f"{run.pending} outputs are left to other shards" if run.pending else "; ".join(run.notes)
        click.echo(f"{run.root}: this part is done; {what}")
        return
    for line in table(run):
        click.echo(line)


def table(run: Run) -> list[str]:
    """The results as lines of text: what was run, each metric with interval and n, and the caveats."""
    results = run.results
    assert results is not None
    judge = results["judge"]
    title = f"{results['task']['name']} on {results['model']['name']}"
    title += f", judged by {judge['name']} ({judge['domain']})" if judge else ""
    lines = [title + (", PARTIAL" if results["partial"] else "")]
    if results["is_test_double"]:
        lines.append("TEST DOUBLE: these figures come from a fake model or judge and mean nothing")
    width = max((len(name) for name in results["metrics"]), default=0)
    lines.append(f"{'metric':<{width}}  value   95 % interval     n")
    for number, (name, metric) in enumerate(results["metrics"].items()):
        if number and metric["value"] is None and not metric["n"]:
            continue  # a figure this run knows nothing about; results.json says why
        value = "-" if metric["value"] is None else f"{metric['value']:.3f}"
        interval = "{:.3f} to {:.3f}".format(*metric["ci95"]) if metric["ci95"] else "-"
        note = f"  {metric['note']}" if metric["note"] else ""
        lines.append(f"{name:<{width}}  {value:<6}  {interval:<16}  {metric['n']}{note}".rstrip())
    counts = results["counts"]
    if counts["unscored"]:
        lines.append(f"{counts['unscored']} of {counts['outputs']} outputs have no score ({counts['failed']} failed)")
    lines += [f"note: {text}" for text in (*results["deviations"], *results["warnings"])]
    lines.append(f"report: {run.report_path}" if run.report_path else f"run: {run.root}")
    return lines
