"""``blip3o-eval config``: the settings that a run would use, and the schema of settings files."""

from __future__ import annotations

from typing import Any

import click

from evals.cli.settings import PREFIX, layers_from, settings_options, task_names


@click.group("config")
def command() -> None:
    """Show settings and their origin, or the schema of settings files."""


@command.command("show", context_settings={"auto_envvar_prefix": PREFIX})
@settings_options
@click.option("--json", is_flag=True, help="One JSON object a task: key -> value and origin.")
@click.pass_context
def show(ctx: click.Context, **options: Any) -> None:
    """Show what `run` would do with the same options: every setting, and where it comes from.

    The options and their environment twins are those of `run` (BLIP3O_EVAL_RUN_LIMIT). Origins, later
    ones winning: default, preset (what model, judge and task bring along), file, environment, --set,
    flag. The YAML can be given back with --config. Secrets are not shown.
    """
    import json

    from evals.config import resolve
    from evals.settings.show import as_yaml, settings_of

    layers = layers_from(ctx)
    for number, name in enumerate(task_names(ctx, layers)):
        origin = next(o for o, layer in reversed(layers) if "task" in layer)
        origin = origin if isinstance(origin, str) else origin["task"]
        config, origins = resolve([*layers, (origin, {"task": name})])
        settings, notes = settings_of(config, origins)
        if options["json"]:
            rows = {key: s.to_json() for key, s in settings.items()}
            click.echo(json.dumps({"settings": rows, "notes": notes}))
        else:
            click.echo(("\n" if number else "") + as_yaml(settings, notes))


@command.command("schema")
@click.argument("kind", type=click.Choice(["run", "sweep"]), default="run")
def schema(kind: str) -> None:
    """Print the JSON Schema of settings files (run) or of sweep files, for editors and other programs."""
    import json

    if kind == "run":
        from evals.settings.show import json_schema
    else:
        from evals.sweeps.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))
