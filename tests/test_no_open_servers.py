"""Nothing in the package listens on other addresses than the loopback one."""

from __future__ import annotations

import re
from pathlib import Path

import blip3o
import evals
import reports
import tasks

# What would open a port to other machines: the any-address, or a server class bound to "".
_OPEN = re.compile(r"""0\.0\.0\.0|["']::["']|HTTPServer\(\(\s*["']{2}""")


def test_no_source_names_an_address_that_others_can_reach() -> None:
    found = [
        f"{path}:{number}"
        for package in (blip3o, evals, reports, tasks)
        for path in sorted(Path(package.__file__).parent.rglob("*.py"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if _OPEN.search(line)
    ]
    assert found == []
    assert _OPEN.search('serve(host="0.0.0.0")')
