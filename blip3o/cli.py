"""``blip3o``: train, generate, ask, parity. Commands import what they need when they run."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import click

# Commands that live elsewhere, loaded when named: name -> (module:attribute, help line).
_LAZY = {
    "train": ("blip3o.train.cli:train", "Train a recipe from nothing."),
}


class LazyGroup(click.Group):
    """A group that imports some of its commands only when they are used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_LAZY])

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _LAZY:
            return super().get_command(ctx, name)
        module, attribute = _LAZY[name][0].split(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """As click does, but without importing the commands for their help lines."""
        rows = [(name, command.get_short_help_str(80)) for name, command in self.commands.items()]
        rows += [(name, text) for name, (_, text) in _LAZY.items()]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))


@click.group(cls=LazyGroup, context_settings={"auto_envvar_prefix": "BLIP3O", "help_option_names": ["-h", "--help"]})
@click.version_option(package_name="blip3o-eval")
def main() -> None:
    """BLIP3-o: one model that understands and generates images."""


@main.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
def parity(files: tuple[Path, ...]) -> None:
    """Replay recorded tensors of the upstream modules (FILE...) and print the differences.

    One line per file, then the number of tensors and the largest difference. Exit 1 if a tensor differs by
    more than 1e-5, an integer differs, or a tensor cannot be replayed.
    """
    from blip3o.parity import replay_file, summary

    reports = []
    for path in files:
        reports.append(replay_file(path))
        click.echo(reports[-1].line())
        for key, reason in list(reports[-1].failures.items())[1:]:
            click.echo(f"{path.name}:{key} failed: {reason}", err=True)
    click.echo(summary(reports))
    if any(report.failures for report in reports):
        sys.exit(1)
