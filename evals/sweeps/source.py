"""Where a definition was read, and how its problems are told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from evals.errors import ConfigError


@dataclass(frozen=True)
class Source:
    """Where a definition was read: for messages."""

    name: str
    lines: Mapping[tuple[str, ...], int] = field(default_factory=dict)

    def place(self, *path: str | int) -> str:
        """``file.yaml:12`` of the key, or of the nearest one around it that has a line."""
        parts = tuple(map(str, path))
        while parts:
            if parts in self.lines:
                return f"{self.name}:{self.lines[parts]}"
            parts = parts[:-1]
        return self.name


def together(name: str, problems: Iterable[str]) -> ConfigError:
    """One error for all that is wrong, a line each, nothing twice."""
    lines = list(dict.fromkeys(problems))
    if len(lines) == 1:
        return ConfigError(lines[0])
    return ConfigError("\n  ".join([f"{name} has {len(lines)} problems:", *lines]))
