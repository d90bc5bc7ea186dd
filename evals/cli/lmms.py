"""``blip3o-eval lmms``: the tasks of the installed lmms-eval, and which of them load."""

from __future__ import annotations

from typing import Any

import click


@click.group("lmms")
def command() -> None:
    """The tasks of lmms-eval that run as lmms:NAME."""


# fmt: off
@command.command("list")
@click.argument("pattern", default="")
@click.option("--check", is_flag=True, help="Load each task's file and functions (about a minute of computing for all) and say why one does not.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
# fmt: on
def list_tasks(pattern: str, check: bool, as_json: bool) -> None:
    """List tasks, groups and tags whose names hold PATTERN.

    Names come from lmms-eval's YAML files; only --check imports it. What was checked is remembered for this
    installation, so later lists show it too.
    """
    import json

    from evals.lmms import catalog, status

    entries = {name: e for name, e in sorted(catalog.entries().items()) if pattern in name}
    known = status.check(entries) if check else status.remembered()
    for name, entry in entries.items():
        problem = known.get(name, "")
        row = {"name": f"lmms:{name}", "kind": entry.kind, "asks": entry.output_type, "data": entry.dataset}
        if as_json:
            state = "not checked" if name not in known else "broken" if problem else "loads"
            click.echo(json.dumps({**row, "folder": entry.folder, "status": state, "reason": problem or None}))
        else:
            click.echo(_line(row, len(entry.members), problem))
    if not as_json:
        broken = sum(bool(known.get(name)) for name in entries)
        checked = sum(name in known for name in entries)
        rest = "" if checked == len(entries) else f", {len(entries) - checked} not checked (--check)"
        click.echo(f"{len(entries)} names: {checked - broken} load, {broken} do not{rest}", err=True)


def _line(row: dict[str, Any], members: int, problem: str | None) -> str:
    what = {"group": "group", "tag": f"tag of {members}"}.get(row["kind"], row["asks"])
    return f"{row['name']:<44} {what:<26} {'broken: ' + problem if problem else row['data']}".rstrip()
