"""MLflow's SQLite database: built whole in a temporary file and renamed into place, never migrated where it lies.

MLflow creates its tables by some fifty migrations. Killed half way, or started by two processes at once, they leave a
file that no later process can open. So all of this happens under a lock; a database found half made, or unreadable,
is set aside under another name and a new one is built. One that holds runs of another MLflow version is left alone.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

log = logging.getLogger("reports")

DEFAULT_DATABASE = Path("runs") / "mlflow.db"
ARTIFACTS = "mlartifacts"  # folder beside the database
LOCK_TIMEOUT_S = 120.0  # for other evaluations, which log one after another, a few seconds each
BUSY_TIMEOUT_S = 30.0  # for whoever else writes: SQLite's own lock
NEEDED_TABLES = {"experiments", "runs", "metrics", "latest_metrics", "params", "tags"}

State = Literal["absent", "ready", "half made", "outdated"]


def path_of(tracking_uri: str) -> Path | None:
    """The file of a `sqlite:///` address, absolute; None for any other address."""
    parts = urlsplit(tracking_uri)
    if parts.scheme.partition("+")[0] != "sqlite" or parts.path in ("", "/", "/:memory:"):
        return None
    # sqlite:///runs/x.db is relative, sqlite:////srv/x.db absolute: the first slash ends the authority.
    return Path(parts.path.removeprefix("/")).absolute()


def uri_of(path: Path) -> str:
    """The address of a database file."""
    return f"sqlite:///{path.absolute()}"


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """The one writer of this database. Raises RuntimeError when others hold it longer than `LOCK_TIMEOUT_S`."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f".{path.name}.lock"))
    try:
        lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout:
        raise RuntimeError(
            f"{path} is in use by another evaluation, waited {LOCK_TIMEOUT_S:g} s"
        ) from None
    try:
        yield
    finally:
        lock.release()


def patient_uri(uri: str) -> str:
    """The address of a database with SQLite's waiting time in it; the default gives up after five seconds."""
    if "timeout=" in uri:
        return uri
    return f"{uri}{'&' if '?' in uri else '?'}timeout={BUSY_TIMEOUT_S:g}"


def state_of(path: Path, head: str) -> State:
    """What the file is. `head` is the schema revision of the installed MLflow."""
    if not path.exists():
        return "absent"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=BUSY_TIMEOUT_S)) as database:
            rows = database.execute(
                "SELECT name FROM sqlite_master WHERE type = 'table'"
            ).fetchall()
            tables = {name for (name,) in rows}
            if "runs" in tables and database.execute("SELECT 1 FROM runs LIMIT 1").fetchone():
                holds_runs = True
            else:
                holds_runs = False
            revisions = []
            if "alembic_version" in tables:
                revisions = database.execute("SELECT version_num FROM alembic_version").fetchall()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise RuntimeError(
                f"{path} is locked by another program, waited {BUSY_TIMEOUT_S:g} s: close what has it open"
            ) from None
        return "half made"
    except sqlite3.DatabaseError:
        return "half made"
    is_whole = NEEDED_TABLES <= tables and not any(t.startswith("_alembic_tmp_") for t in tables)
    if is_whole and revisions == [(head,)]:
        return "ready"
    return "outdated" if holds_runs else "half made"


def ensure(path: Path) -> None:
    """Make sure a complete database lies at `path`; call it while `locked`.

    Raises: RuntimeError for a database that holds runs of another MLflow version.
    """
    head = _head_revision()
    state = state_of(path, head)
    if state == "ready":
        return
    if state == "outdated":
        raise RuntimeError(
            f"{path} holds runs of another MLflow version: back it up, then run `mlflow db upgrade {uri_of(path)}`"
        )
    if state == "half made":
        aside = set_aside(path)
        log.warning(
            "%s was half made or unreadable: set aside as %s, a new one is built", path, aside.name
        )
    for stray in path.parent.glob(f".{path.name}.building-*"):
        stray.unlink(missing_ok=True)
    building = path.with_name(f".{path.name}.building-{uuid.uuid4().hex}")
    try:
        _build(building, path.parent / ARTIFACTS)
        os.replace(building, path)
    finally:
        building.unlink(missing_ok=True)


def set_aside(path: Path) -> Path:
    """Rename the database and its journals; returns the new name."""
    stamp = time.strftime("%Y%m%d-%H%M%S")
    aside = path.with_name(f"{path.name}.set-aside-{stamp}-{uuid.uuid4().hex[:6]}")
    for suffix in ("", "-journal", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            os.replace(part, aside.with_name(aside.name + suffix))
    return aside


def _build(path: Path, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    store = SqlAlchemyStore(uri_of(path), artifacts.absolute().as_uri())
    store.engine.dispose()


def _head_revision() -> str:
    import mlflow
    from alembic.script import ScriptDirectory

    folder = Path(mlflow.__file__).parent / "store" / "db_migrations"
    (head,) = ScriptDirectory(str(folder)).get_heads()
    return str(head)
