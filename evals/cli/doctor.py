"""``blip3o-eval doctor``: is everything here that a run needs?"""

from __future__ import annotations

import click


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
def command(as_json: bool) -> None:
    """Check versions, the four packages, bundled weights, licences, plug-ins, disk and tracking.

    Exit code 1 if a check failed; warnings do not count.
    """
    from evals.checks import CHECKS

    has_failed = False
    for check in CHECKS:
        for finding in check():
            has_failed = has_failed or finding.status == "failed"
            if as_json:
                import json
                from dataclasses import asdict

                click.echo(json.dumps(asdict(finding)))
            else:
                click.echo(f"{finding.status:<8} {finding.name:<13} {finding.text}")
    raise SystemExit(1 if has_failed else 0)
