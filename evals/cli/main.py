"""``blip3o-eval``: the click group. A command's module is imported only when it is called."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
from typing import Any

import click

ENVIRONMENT = "BLIP3O_EVAL"

# name -> (module, what it does); the text stands here so that --help imports no command.
COMMANDS = {
    "run": ("evals.cli.run", "Run tasks on a model: generate, judge, score, report."),
    "score": ("evals.cli.score", "Score what others made: pictures, detections, answers."),
    "rescore": ("evals.cli.rescore", "Judge the outputs of a run again, in a folder of its own."),
    "compare": ("evals.cli.compare", "Paired differences of finished runs, with p-values."),
    "sweep": ("evals.cli.sweep", "Grids of points that train and evaluate: plan, run, report."),
    "kept": ("evals.cli.kept", "Was understanding kept? Runs before and after generation training."),
    "power": ("evals.cli.power", "Which difference a run can show, and what size one needs."),
    "fid": ("evals.cli.fid", "FID, KID, IS, precision and recall of a folder of pictures."),
    "judge": ("evals.cli.judge", "How far a judge can be trusted: judge agree."),
    "report": ("evals.cli.report", "Write the HTML report of finished runs."),
    "export": ("evals.cli.export", "Figures as csv, markdown, latex, model-index or lmms-eval JSON."),
    "merge": ("evals.cli.merge", "Merge the shards of a run by hand, score and report it."),
    "track": ("evals.cli.track", "Log runs to MLflow whose logging failed: track sync."),
    "data": ("evals.cli.data", "Data of tasks: get them from the hub, check what is here."),
    "config": ("evals.cli.config", "Show settings and their origin, or the schema of settings files."),
    "list": ("evals.cli.list", "List tasks, models, judges or metrics."),
    "lmms": ("evals.cli.lmms", "The tasks of lmms-eval that run as lmms:NAME: lmms list."),
    "convert-mmdet": ("evals.cli.convert_mmdet", "Convert the weights of GenEval's own detector."),
    "doctor": ("evals.cli.doctor", "Check the installation, bundled weights, disk and tracking."),
}


class LazyGroup(click.Group):
    """Finds commands in ``COMMANDS``; turns the harness's errors into one line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        command = importlib.import_module(COMMANDS[name][0]).command
        assert isinstance(command, click.Command)
        twins = name_twins(command, f"{ENVIRONMENT}_{name}")
        if not ctx.resilient_parsing and name != "config":  # which reads those of another command
            _warn_of_strangers(name, twins)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            close = difflib.get_close_matches(args[0], COMMANDS, n=2)
            hint = (
                f"Did you mean: {', '.join(close)}?" if close else f"Known: {', '.join(COMMANDS)}."
            )
            raise click.UsageError(f"No such command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def main(self, *args: Any, **extra: Any) -> Any:
        try:
            return super().main(*args, **extra)
        except OSError as error:
            if not _is_of_output(error):
                raise
            # What is left to write is given up; else the interpreter's end fails on it again.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            click.echo(f"Error: standard output cannot be written: {error.strerror}", err=True)
            sys.exit(1)

    def invoke(self, ctx: click.Context) -> Any:
        from blip3o.errors import Blip3oError
        from evals.errors import EvalError
        from evals.io.redact import redact

        sys.excepthook = _print_without_secrets
        try:
            return super().invoke(ctx)
        except (EvalError, Blip3oError) as error:
            failure = click.ClickException(redact(str(error)))
            failure.exit_code = getattr(error, "exit_code", 1)  # type: ignore[misc]  # click: of the class
            raise failure from error


def _is_of_output(error: OSError) -> bool:
    """Whether an error comes from printing, say on a full disk: it carries no name, but its last frame is click's."""
    import traceback

    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return bool(frames) and frames[-1].f_globals.get("__name__") == click.utils.__name__


def _print_without_secrets(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """A fault of ours keeps its traceback, without the passwords that its messages may quote."""
    import traceback

    from evals.io.redact import redact

    sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))


def name_twins(command: click.Command, prefix: str) -> list[str]:
    """Name the environment twin of every option after its long form: ``--as-is`` -> ``PREFIX_AS_IS``.

    click would name it after the parameter, which need not be called like the option. Returns the names.
    """
    found = []
    prefix = str(command.context_settings.get("auto_envvar_prefix", prefix)).upper().replace("-", "_")
    for parameter in command.params:
        long = [o for o in parameter.opts if o.startswith("--")]
        if isinstance(parameter, click.Option) and long and parameter.envvar is None:
            parameter.envvar = f"{prefix}_{long[0][2:].upper().replace('-', '_')}"
        if isinstance(parameter.envvar, str):
            found.append(parameter.envvar)
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            found += name_twins(inner, f"{prefix}_{name}")
    return found


def _warn_of_strangers(name: str, twins: list[str]) -> None:
    """A misspelt twin would change nothing without a word."""
    prefix = f"{ENVIRONMENT}_{name}_".upper().replace("-", "_")
    for variable in sorted(k for k in os.environ if k.startswith(prefix) and k not in twins):
        close = difflib.get_close_matches(variable, twins, n=1)
        hint = f" Did you mean: {close[0]}?" if close else ""
        click.echo(f"warning: {variable} is the twin of no option of {name!r}.{hint}", err=True)


def _print_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"blip3o-eval {version('blip3o-eval')}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={
        "auto_envvar_prefix": ENVIRONMENT,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.option(
    "--version", is_flag=True, expose_value=False, is_eager=True, callback=_print_version,
    help="Print the version and exit.",
)  # fmt: skip
def main() -> None:
    """Evaluate models that understand and generate images.

    Results go to stdout (--json for machines), progress to stderr. Exit code 0: done, 1: failed,
    2: wrong usage. Every option has an environment twin such as BLIP3O_EVAL_RUN_LIMIT.

    \b
    blip3o-eval run --task geneval              553 prompts x 4 pictures by the bundled model
    blip3o-eval run --task geneval --limit 12   a quick look, marked partial
    """


if __name__ == "__main__":
    main()
