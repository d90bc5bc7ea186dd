"""Pairs of picture and question, with each picture once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evals.errors import UsageError


def unique_pictures(images: Sequence[Any], questions: Sequence[str]) -> tuple[list[Any], list[int]]:
    """The different picture objects in RGB, and for each question the number of its picture.

    Raises: UsageError when there are not as many pictures as questions.
    """
    if len(images) != len(questions):
        raise UsageError(f"{len(images)} images with {len(questions)} questions: give pairs")
    numbers: dict[int, int] = {}
    pictures: list[Any] = []
    for image in images:
        if id(image) not in numbers:
            numbers[id(image)] = len(pictures)
            pictures.append(image.convert("RGB"))
    return pictures, [numbers[id(image)] for image in images]
