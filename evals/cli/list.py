"""``blip3o-eval list``: what is registered, where it comes from, and what is broken."""

from __future__ import annotations

from typing import Any

import click


class Kind(click.Choice):
    """One of the four registries; a near miss gets a suggestion."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        import difflib

        close = difflib.get_close_matches(value, self.choices, n=1, cutoff=0.5)
        if value not in self.choices and close:
            self.fail(f"{value!r} cannot be listed. Did you mean: {close[0]}?", param, ctx)
        return str(super().convert(value, param, ctx))


@click.command("list")
@click.argument("what", type=Kind(["tasks", "models", "judges", "metrics"]))
@click.option("--all", "with_lmms", is_flag=True, help="Tasks: those of lmms-eval, too (lmms:NAME), where it is installed.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(what: str, with_lmms: bool, as_json: bool) -> None:
    """List tasks, models, judges or metrics.

    Plug-ins are imported to see whether they load; a broken one is shown with its error.
    """
    from evals import discovery

    discovery.discover()
    registry = discovery.GROUPS[what]
    discovery.check_plugins(registry)
    rows = [
        (n, registry.origin(n), registry.error(n), registry.summary(n)) for n in registry.names()
    ]
    if with_lmms:
        if what != "tasks":
            raise click.UsageError("--all adds the tasks of lmms-eval: `list tasks --all`")
        rows += _lmms_rows()
    if as_json:
        import json

        for name, origin, error, summary in rows:
            click.echo(
                json.dumps({"name": name, "origin": origin, "error": error, "summary": summary})
            )
        return
    width = max((len(name) for name, *_ in rows), default=0)
    for name, origin, error, summary in rows:
        source = "" if origin == discovery.BUILT_IN else f"[{origin}] "
        click.echo(f"{name:<{width}}  {source}{'broken: ' + error if error else summary}".rstrip())


def _lmms_rows() -> list[tuple[str, str, str | None, str]]:
    """As the others: name, origin, why it does not load where that is known (`lmms list --check`), one line."""
    from evals.lmms import catalog, package, status

    known, origin = status.remembered(), f"lmms-eval {package.version()}"
    return [
        (f"lmms:{name}", origin, known.get(name), entry.dataset if entry.path else f"{len(entry.members)} tasks")
        for name, entry in sorted(catalog.entries().items())
    ]
