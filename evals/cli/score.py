"""`blip3o-eval score`: score what others made, be it recorded answers or a folder of pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from evals.cli.settings import NumberOrAuto, Share, judge_settings
from evals.errors import UsageError

_SHORT_LIST = 4
_MAX_CELL_CHARACTERS = 72
# What belongs to --images alone: parameter -> key of RunConfig.
_KEYS = {
    "judge": "judge.name",
    "data": "data",
    "judge_batch_size": "judge.batch_size",
    "limit": "limit",
    "num_images": "num_images",
    "device": "model.device",
    "max_errors": "max_errors",
    "experiment": "tracking.experiment",
    "tracking_uri": "tracking.tracking_uri",
}
_FLAGS = ("output", "set", "rewritten_prompts", "fresh", "retry_errors", "no_track")


# fmt: off
@click.command("score")
@click.option("--task", required=True, metavar="T", help="The task whose rules apply.")
@click.option("--detections", metavar="FILE", help="Recorded detections, one picture a line.")
@click.option("--results", metavar="FILE", help="The results.jsonl of GenEval's own script, or the score lines of WISE's.")
@click.option(
    "--crops", metavar="FILE", help="Pictures, masks and boxes: what the colour judge sees."
)
@click.option("--answers", metavar="FILE", help="Recorded answers of a model or a judge.")
@click.option("--images", metavar="DIR", help="Pictures already made, in GenEval's layout (00000/samples/0000.png), DPG-Bench's (<item id>.png, a 2 x 2 grid) or WISE's (<prompt_id>.png); needs --judge. Nothing is written into DIR.")
@click.option(
    "--compat",
    metavar="NAME",
    help="Score by the rules of another harness, such as lmms-eval (default: the task's own).",
)
@click.option("--judge", metavar="NAME", help="With --images: who judges, such as stickers. There is no default: nobody knows what kind of pictures DIR holds.")
@click.option("--data", type=click.Path(), metavar="PATH", help="With --images: the task's own files, such as the prompts and reference of fid, the prompts of wise or the questions of dpg; a prompt list by name for clipscore and vqascore.")
@click.option("--set", multiple=True, metavar="judge.args.X=V", help="With --images: one argument of the judge; may be repeated.")
@click.option("--output", type=click.Path(), metavar="DIR", help="With --images: run folder.  [default: runs/<task>-images-DIR-<configuration>]")
@click.option("--limit", type=int, metavar="N", help="With --images: only N prompts, spread evenly over the groups, the same ones as in a run; marked partial.  [default: all]")
@click.option("--num-images", type=int, metavar="N", help="With --images: pictures per prompt.  [default: the task's own, GenEval 4]")
@click.option("--rewritten-prompts", is_flag=True, help="With --images: take metadata whose prompt was rewritten while what is asked for is the official; marked as a deviation.")
@click.option("--judge-batch-size", type=NumberOrAuto(), metavar="N|auto", help="With --images: pictures per call of the judge.  [default: auto]")
@click.option("--device", metavar="D", help="With --images: auto, cpu, cuda, cuda:N or mps, for the judge.  [default: auto]")
@click.option("--max-errors", type=Share(), metavar="SHARE", help="With --images: share of pictures that may be missing or fail before the exit code is 1.  [default: 1%]")
@click.option("--fresh", is_flag=True, help="With --images: remove what is in the run folder and start over.")
@click.option("--retry-errors", is_flag=True, help="With --images: try pictures and verdicts that ended in an error again.")
@click.option("--experiment", metavar="E", help="With --images: MLflow experiment.  [default: blip3o-eval]")
@click.option("--tracking-uri", metavar="U", help="With --images: MLflow tracking URI.  [default: MLFLOW_TRACKING_URI or runs/mlflow.db]")
@click.option("--no-track", is_flag=True, help="With --images: do not log to MLflow.")
@click.option("-q", "--quiet", is_flag=True, help="No progress on stderr.")
@click.option("--json", is_flag=True, help="One JSON object a line (default: a table).")
@click.pass_context
# fmt: on
def command(ctx: click.Context, **options: Any) -> None:
    """Score what others made by a task's official rules. Give one input.

    Recordings (--detections, --results, --crops, --answers) need no judge, and their exit status is 0 once
    every line was read, whatever the verdicts.

    A folder of pictures (--images) is judged and becomes a normal run folder, whose model is images:DIR.
    The same command resumes. Pictures that are missing or cannot be read are counted and named, and then
    no overall is given.
    """
    task_name, compat, as_json = options["task"], options["compat"], options["json"]
    task = _task(task_name)
    kinds = ("detections", "results", "crops", "answers", "images")
    inputs = {k: options[k] for k in kinds if options[k] is not None}
    kind, path = _one_input(task_name, task, inputs)
    if kind == "images":
        if compat is not None:
            raise UsageError("--compat is for recorded answers, not for --images: leave it out")
        _score_images(ctx, task_name, task, path, as_json)
        return
    _refuse_run_options(ctx, kind)
    extra = {} if compat is None else {"compat": _compat(task_name, task, compat)}

    from evals.recorded import read_lines

    rows = task.score_recorded(kind, read_lines(path), **extra)
    for line in _json_lines(rows) if as_json else _table(rows):
        click.echo(line)
    for note in getattr(task, "notes_on_recorded", lambda *_: [])(kind, rows):
        click.echo(f"note: {note}", err=True)


def _score_images(ctx: click.Context, name: str, task: Any, folder: str, as_json: bool) -> None:
    """Judge a folder of pictures; a run folder comes out."""
    from pathlib import Path

    from evals import registry
    from evals.cli.interrupts import resumable
    from evals.cli.run import set_up_logging, show, wait_politely
    from evals.config import resolve, set_key
    from evals.errors import EvalError
    from evals.runner import RunOptions, prepare

    options = ctx.params
    judges = ", ".join(registry.judges.names())
    if not options["judge"]:
        raise UsageError(
            f"score --images needs --judge: nobody knows what kind of pictures {folder} holds; known are: {judges}"
        )
    if options["judge"] == "auto":
        raise UsageError(
            f"--judge auto has no answer for {folder}: nobody knows what kind of pictures it holds; choose one "
            f"with --judge, known are: {judges}"
        )
    wait_politely()
    set_up_logging(False, options["quiet"])
    layer = judge_settings(options["set"], "score --images")
    set_key(layer, "task", name)
    set_key(layer, "model.name", f"images:{folder}")
    for option, key in _KEYS.items():
        if options[option] is not None:
            set_key(layer, key, options[option])
    if options["rewritten_prompts"]:
        set_key(layer, "model.args", {"rewritten_prompts": True})
    if options["no_track"]:
        set_key(layer, "tracking.enabled", False)
    config = resolve([("the command line", layer)])[0]
    run_options = RunOptions(
        Path(options["output"]) if options["output"] else None,
        fresh=options["fresh"],
        retry_errors=options["retry_errors"],
        quiet=options["quiet"],
    )
    with resumable():
        run = prepare(name, config.model.name, config.judge.name, config, run_options).run()
    show(run, as_json)
    if run.problem is not None:
        raise EvalError(run.problem)


def _refuse_run_options(ctx: click.Context, kind: str) -> None:
    """Options of --images that were typed beside another input are a misunderstanding."""
    for option in (*_KEYS, *_FLAGS):
        source = ctx.get_parameter_source(option)
        if source is not None and source.name == "COMMANDLINE":
            raise UsageError(
                f"--{option.replace('_', '-')} belongs to --images: recorded {kind} are scored without judge and "
                "run folder"
            )


def _task(name: str) -> Any:
    from evals import discovery, registry

    discovery.discover()
    return registry.tasks.get(name)()


def _one_input(name: str, task: Any, given: Mapping[str, str]) -> tuple[str, str]:
    """The input's kind and path. Raises UsageError unless exactly one is given and the task reads it."""
    readable: list[str] = [*getattr(task, "recorded_kinds", ())]
    readable += ["images"] if task.kind == "generation" else []
    if not readable:
        raise UsageError(
            f"task {name!r} scores no recorded inputs; use blip3o-eval run --task {name}"
        )
    available = " or ".join(f"--{kind} {'DIR' if kind == 'images' else 'FILE'}" for kind in readable)
    if len(given) != 1:
        problem = f"got {' and '.join(f'--{kind}' for kind in given)}" if given else "got none"
        raise UsageError(f"score --task {name} needs one input ({available}), {problem}")
    kind, path = next(iter(given.items()))
    if kind not in readable:
        raise UsageError(f"task {name!r} cannot be scored from --{kind} here; it reads {available}")
    return kind, path


def _compat(name: str, task: Any, compat: str) -> str:
    known: Sequence[str] = getattr(task, "compat_modes", ())
    if compat not in known:
        allowed = (
            f"allowed is {' or '.join(known)}" if known else "this task has its own rules only"
        )
        raise UsageError(f"score --task {name}: --compat {compat!r} is not known; {allowed}")
    return compat


def _json_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return [json.dumps(row, allow_nan=False) for row in rows]


def _table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows as aligned columns, of which a row may lack some; a single row as one line per key.

    Nested values are left to --json: whether a column is nested is read off the first row that has it.

    A row's `result` is taken apart, and a last row of figures over all (`aggregate`) stands below.
    """
    if len(rows) > 1 and "aggregate" in rows[-1]:
        body = [{"n": row["n"], **row["result"]} for row in rows[:-1]]
        return [*_table(body), *_figures(rows[-1]["aggregate"]["metrics"])]
    if len(rows) == 1:
        width = max(len(key) for key in rows[0])
        return [f"{key:<{width}}  {_cell(value)}".rstrip() for key, value in rows[0].items()]
    first: dict[str, Any] = {}
    for row in rows:
        for key, value in row.items():
            first.setdefault(key, value)
    columns = [key for key, value in first.items() if _is_short(value)]
    cells = [columns, *([_cell(row[key]) if key in row else "" for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    ]
    for key in columns:
        values = [row[key] for row in rows if key in row]
        if all(isinstance(value, bool) for value in values):
            lines.append(f"{key}: {sum(values)} of {len(values)}")
    return lines


def _figures(metrics: Mapping[str, Any]) -> list[str]:
    """One line a figure that has a value; in the harness's own form with its number of scores."""
    lines = []
    for name, figure in metrics.items():
        is_plain = not isinstance(figure, Mapping)
        value = figure if is_plain else figure["value"]
        if is_plain or figure["n"]:
            count = "" if is_plain else f"  (n {figure['n']}, without a score {figure['unscored']})"
            lines.append(f"{name}: {_cell(value)}{count}")
    return lines


def _is_short(value: Any) -> bool:
    is_nested = isinstance(value, Mapping) or (
        isinstance(value, Sequence) and not isinstance(value, str) and len(value) > _SHORT_LIST
    )
    return not is_nested


def _cell(value: Any) -> str:
    """One line of printable text; JSON escapes keep control characters away from the terminal."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4f}"
    text = "; ".join(value.split("\n")) if isinstance(value, str) else json.dumps(value)
    text = json.dumps(text)[1:-1] if not text.isprintable() else text
    return text if len(text) <= _MAX_CELL_CHARACTERS else text[: _MAX_CELL_CHARACTERS - 3] + "..."
