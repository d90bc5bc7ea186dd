"""Credits for what a page shows, as the licences of the sticker sprites ask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

SPRITES = (
    ("Fluent Emoji, \N{COPYRIGHT SIGN} Microsoft Corporation", "MIT"),
    ("Noto Emoji, \N{COPYRIGHT SIGN} Google LLC", "Apache-2.0"),
    (
        "Twemoji graphics by Twitter, Inc and other contributors, modified",
        "CC-BY 4.0, creativecommons.org/licenses/by/4.0",
    ),
)


def credits_of(manifest: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(work, licence) for a run that shows or judges stickers; [] for others.

    A model of the sticker world learned from the first two styles and its judge is measured on the third; input
    pictures of the sticker tasks show all three.
    """
    parts = (manifest["model"], manifest["judge"])
    domains = {part["domain"] for part in parts if part is not None}
    return list(SPRITES) if "stickers" in domains or "stickers" in manifest["task"]["name"] else []
