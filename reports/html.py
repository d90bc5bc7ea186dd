"""One self-contained HTML page for one run, or for several side by side.

Everything is inside the file: styles, script, figures, pictures, data to download. A content security policy in the
page forbids every request, and all text of others (prompts, reasons, names) passes through autoescaping or through
JSON that cannot end its script element.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evals.errors import UsageError
from evals.store import write_atomically
from reports.embed import coded, markup

if TYPE_CHECKING:
    import jinja2

FILE_NAME = "report.html"
# Tables first: they move the definitions of heads to the buttons that they make of them.
SCRIPTS = ("base", "tables", "tips", "figures", "gallery", "viewer")


def write_report(run_dirs: Path | Sequence[Path], out: Path | None = None) -> Path:
    """Write the page of one run, or of several side by side, and return its path.

    An unfinished run gets a page of what is there, which says so on top.

    Args: run_dirs: run folders. out: file to write; default `report.html` in the folder of a single run.
    Raises: UsageError for no run, runs that do not compare, or several without `out`; InputError for a damaged folder;
    StoreError if the page cannot be written.
    """
    folders = [Path(run_dirs)] if isinstance(run_dirs, (str, Path)) else [Path(d) for d in run_dirs]
    if not folders:
        raise UsageError("no run to report: name one or more run folders")
    if out is None:
        if len(folders) > 1:
            raise UsageError(f"a report on {len(folders)} runs needs a file to be written to")
        out = folders[0] / FILE_NAME
    from reports.unfinished import load_any

    runs = [load_any(folder) for folder in folders]
    if len(runs) == 1:
        from reports.page import run_page

        page = render("run.html.j2", run_page(runs[0]))
    else:
        from reports.compare import comparison_page

        page = render("compare.html.j2", comparison_page(runs))
    # Prompts may hold lone surrogates, which no encoding knows; they become question marks.
    write_atomically(out, page.encode("utf-8", "replace"))
    return out


def render(template: str, context: Mapping[str, Any]) -> str:
    """A page from a template of `reports/templates`, with style, script and security policy put in."""
    # In one strict function, so that the parts share names with nothing but each other.
    script = f"(() => {{\n{''.join(_text(f'js/{name}.js') for name in SCRIPTS)}}})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            style=markup(_text("report.css")),
            script=markup(script),
            policy=(
                "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
                f"script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
            ),
        )
    )


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    import jinja2

    from reports import format as fmt

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": fmt.number,
        "as_published": fmt.as_published,
        "interval": fmt.interval,
        "signed": fmt.signed,
        "signed_interval": fmt.signed_interval,
        "count": fmt.count,
        "words": fmt.words,
        "seconds": fmt.seconds,
        "short": fmt.short_digest,
        "coded": coded,
        "flops": fmt.flops,
    }
    return environment


def _text(name: str) -> str:
    return resources.files("reports").joinpath(f"templates/{name}").read_text(encoding="utf-8")
