"""Evaluations of a sweep that do not belong with the others: another judge, other prompts, another version of the task.

It happens where a sweep goes on after an upgrade, or where somebody judged some of its runs again. Their figures are
no means of the same thing, so they are left out of every mean, and said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from evals import comparison
from evals.errors import EvalError
from evals.fingerprint import sha256_of
from evals.results import load
from evals.sweeps.folder import FINAL, SweepFolder


def mixed_points(folder: SweepFolder, points: Sequence[str], tasks: Sequence[str]) -> Mapping[tuple[str, str], str]:
    """(point, task) -> what differs, of final evaluations unlike those of most points (the first ones in a tie).

    Evaluations whose folder is damaged or missing are none of them; whoever needs their scores says so.
    """
    found: dict[tuple[str, str], str] = {}
    for task in tasks:
        groups: dict[str, list[str]] = {}
        identities = {}
        for point in points:
            try:
                own = comparison.identity(load(folder.eval_folder(point, FINAL, task)))
            except (EvalError, KeyError, TypeError):
                continue
            identities[point] = own
            groups.setdefault(sha256_of(own), []).append(point)
        if len(groups) < 2:
            continue
        most = max(groups.values(), key=len)
        wanted = identities[most[0]]
        for group in groups.values():
            if group is not most:
                keys = [key for key in wanted if wanted[key] != identities[group[0]][key]]
                found |= {(point, task): ", ".join(keys) for point in group}
    return found
