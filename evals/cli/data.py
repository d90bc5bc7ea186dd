"""``blip3o-eval data``: get the data of tasks from the hub, and say what is here."""

from __future__ import annotations

from typing import Any

import click


@click.group("data")
def command() -> None:
    """Data of tasks: get them from the hub, check what is on this machine."""


# fmt: off
@command.command("get")
@click.option("--task", "tasks", required=True, metavar="NAME[,NAME]", help="Tasks, or `all` that have data on the hub.")
@click.option("--output", type=click.Path(file_okay=False), metavar="DIR", help="Folder for the data of all tasks; each gets one of its own there.  [default: $BLIP3O_EVAL_DATA, else data]")
@click.option("--revision", metavar="R", help="Branch, tag or commit of the data set.  [default: main, or the commit of a download that was begun]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a task.")
# fmt: on
def get(tasks: str, output: str | None, revision: str | None, as_json: bool) -> None:
    """Download the split that a task reads; the same command goes on with a download that broke off.

    The commit is settled first. Every file is read against the digest that the hub gives for it, and
    DIR/<task>/blip3o-data.json keeps repository, commit and digests. Then: run --data DIR.
    """
    import json
    import os
    from dataclasses import asdict
    from pathlib import Path

    from huggingface_hub.utils import logging as hub_logging

    from evals.datasets.fetch import fetch

    hub_logging.set_verbosity_error()  # of five attempts in a row; what came of them is said once
    root = Path(output or os.environ.get("BLIP3O_EVAL_DATA") or "data").expanduser()
    for name, task in _tasks(tasks).items():
        record = fetch(name, task.source, root / name, revision, lambda line: click.echo(line, err=True))
        if as_json:
            click.echo(json.dumps({"task": name, "folder": str(root / name), **asdict(record)}))
        else:
            click.echo(f"{name}: {root / name}; run it with --data {root}")


# fmt: off
@command.command("check")
@click.option("--task", "tasks", default="all", show_default=True, metavar="NAME[,NAME]", help="Tasks, or `all` that have data on the hub.")
@click.option("--data", type=click.Path(), metavar="PLACE", help="File or folder, as for `run`.  [default: $BLIP3O_EVAL_DATA, then the hub's cache]")
@click.option("--pictures", is_flag=True, help="Decode every picture, too.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a task.")
# fmt: on
def check(tasks: str, data: str | None, pictures: bool, as_json: bool) -> None:
    """Say what of the tasks' data is here, what is missing, and their digests. Needs no network.

    Exit code 1 if something is incomplete or damaged, or if a task that was named has no data.
    """
    import json

    from evals.datasets.inventory import check as take

    failed = False
    for name, task in _tasks(tasks, data).items():
        found = take(name, task, pictures)
        failed = failed or found.state in ("incomplete", "damaged")
        failed = failed or (found.state == "missing" and tasks != "all")
        click.echo(json.dumps(found.to_json()) if as_json else "\n".join(_lines(found)))
    raise SystemExit(1 if failed else 0)


def _tasks(names: str, data: str | None = None) -> dict[str, Any]:
    """Tasks that have data on the hub, by the name under which these lie. Raises: UsageError for others."""
    from evals import registry
    from evals.discovery import BUILT_IN, discover
    from evals.errors import UsageError
    from evals.plugins.lookup import find_task, takes

    discover()
    known = [name for name in registry.tasks.names() if registry.tasks.origin(name) == BUILT_IN]
    wanted = known if names == "all" else list(dict.fromkeys(names.split(",")))
    found = {}
    for name in wanted:
        factory = registry.tasks.get(name)
        if not hasattr(factory, "source") or not takes(factory, "data"):
            if names == "all":
                continue
            lists = getattr(factory, "bundled_lists", ())
            hint = f"; `run --data {'|'.join(lists)}` takes prompts that come with the package" if lists else ""
            raise UsageError(f"task {name!r} reads no data set of the hub: there is nothing to get or check{hint}")
        # Editions of a task read its documents.
        found[getattr(factory, "data_of", "") or name] = find_task(name, data)
    return found


def _lines(found: Any) -> list[str]:
    rows = "" if found.rows is None else f"{found.rows:,} documents"
    if found.official_rows and found.rows is not None:
        rows += f" of {found.official_rows:,}"
    pictures = "" if found.pictures is None else f", {found.pictures:,} pictures decoded"
    lines = [f"{found.task:<12} {found.state:<10} {found.place or ''}  {rows}{pictures}".rstrip()]
    if found.problem:
        lines.append(f"{'':<12} {found.problem}")
    if found.origin and found.origin["repository"]:
        lines.append(f"{'':<12} {found.origin['repository']} at {found.origin['revision']}")
    for file in found.files:
        size = "" if file.size is None else f"{file.size:,} bytes  sha256 {file.sha256}"
        lines.append(f"{'':<12} {file.state:<10} {file.name}  {size}".rstrip())
    if found.digest:
        lines.append(f"{'':<12} digest {found.digest}")
    return lines
