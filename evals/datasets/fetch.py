"""The files of a task's split, from the hub into a folder; the same call goes on where one broke off.

The commit is settled first and written down, so that a download of many hours ends in one revision, whatever the
branch does meanwhile. Each file is read against the digest that the hub gives for it. huggingface_hub does the
transfer; what has arrived of a file stays in ``NAME.part`` (its own download functions throw that away since 2.0).
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from evals.datasets.record import Record, read_record, write_record
from evals.errors import EvalError, InputError, MissingRequirementError, StoreError
from evals.io.digests import file_digest
from evals.io.files import writing
from evals.io.locks import FileLock
from evals.models.hub import hub_problem

_SPARE_BYTES = 64 * 2**20


class HubSource(Protocol):
    """Which files of a data set a task reads."""

    hub_id: str

    def has(self, name: str) -> bool:
        """Whether a file of the repository, by its path there, is one of them."""


class FetchError(EvalError):
    """A download broke off or brought something else than the hub promised."""


def fetch(
    task: str,
    source: HubSource,
    folder: Path,
    revision: str | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Record:
    """Bring a task's files into a folder, which then holds a record of them.

    Args: revision: branch, tag or commit; None goes on with the commit of a download that was begun, else takes main.
    Raises: MissingRequirementError without network or leave, InputError for what the hub does not have, FetchError for
    a download that broke off, StoreError for a folder that cannot be written or is too small.
    """
    known = read_record(folder)
    again = f"`blip3o-eval data get --task {task} --output {folder.parent}`"
    if known is not None and known.is_complete and revision in (None, known.asked, known.revision):
        if not _not_here(known, folder):
            say(f"{task}: complete, {len(known.files)} files of {known.repository} at {known.revision}")
            return known
    if problem := hub_problem():
        raise MissingRequirementError(
            f"data of task {task!r} ({source.hub_id}) cannot be got: {problem}; run {again} where there is network and "
            "bring the folder here"
        )
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / ".blip3o-data.lock").acquire(what="download"):
        record = _settle(task, source, known, revision)
        if known is not None and known.revision != record.revision:
            for name in known.files:  # the rest of another revision would not fit what has arrived
                (folder / f"{name}.part").unlink(missing_ok=True)
        _check_room(folder, record)
        write_record(folder, record)
        whole = f"{len(record.files)} files, {record.size / 1e6:,.1f} MB"
        say(f"{task}: {whole}, of {record.repository} at {record.revision}")
        files: dict[str, Any] = {}
        for name, wanted in record.files.items():
            files[name] = _bring(name, dict(wanted), record, folder, again)
            say(f"{task}: {name}  {files[name]['size']:,} bytes  sha256 {files[name]['sha256']}")
        done = Record(record.repository, record.asked, record.revision, files, is_complete=True)
        write_record(folder, done)
    return done


def _settle(task: str, source: HubSource, known: Record | None, revision: str | None) -> Record:
    """What is to be fetched: repository, commit, and files with sizes and the hub's digests."""
    from huggingface_hub import HfApi

    asked = revision or (known.asked if known else "main")
    wanted = known.revision if known and revision in (None, known.asked) else asked
    info = _asking(source.hub_id, lambda: HfApi().dataset_info(source.hub_id, revision=wanted, files_metadata=True))
    files = {
        one.rfilename: {"size": one.size, "sha256": one.lfs.sha256 if one.lfs else None}
        for one in sorted(info.siblings or (), key=lambda one: one.rfilename)
        if source.has(one.rfilename)
    }
    if not files or info.sha is None:
        raise InputError(
            f"{source.hub_id} at {wanted} holds no file of task {task!r}: its layout is not the known one; give "
            "another --revision, or the files by hand with --data"
        )
    return Record(source.hub_id, asked, info.sha, files)


def _bring(
    name: str, wanted: dict[str, Any], record: Record, folder: Path, again: str
) -> dict[str, Any]:
    """One file, whole and as promised. Returns: its size and digest."""

    path = folder / name
    if not _is_whole(path, wanted):
        with writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        _asking(
            record.repository,
            lambda: _transfer(name, wanted["size"], record, path),
            f"{name} broke off; {again} goes on from there",
        )
    digest = file_digest(path)
    promised = wanted["sha256"]
    if path.stat().st_size != wanted["size"] or promised not in (None, digest):
        path.unlink()
        raise FetchError(
            f"{path} is not what the hub promised (sha256 {digest}, expected {promised}) and was removed: {again} gets "
            "it again"
        )
    return {"size": wanted["size"], "sha256": digest}


def _transfer(name: str, size: int, record: Record, path: Path) -> None:
    """Bytes that are not here yet, after those that are, then the file under its own name."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    url = hf_hub_url(record.repository, name, repo_type="dataset", revision=record.revision)
    part = path.with_name(f"{path.name}.part")
    with open(part, "r+b" if part.exists() else "w+b") as file:
        here = file.seek(0, os.SEEK_END)
        if here > size:  # of another revision
            here = file.seek(0)
            file.truncate()
        http_get(url, file, resume_size=here, headers=build_hf_headers(), expected_size=size)
    os.replace(part, path)


def _is_whole(path: Path, wanted: dict[str, Any]) -> bool:
    if not path.is_file() or path.stat().st_size != wanted["size"]:
        return False
    return wanted["sha256"] is not None and file_digest(path) == wanted["sha256"]


def _not_here(record: Record, folder: Path) -> list[str]:
    """Files that are missing or of another size."""
    return [
        name
        for name, wanted in record.files.items()
        if not (folder / name).is_file() or (folder / name).stat().st_size != wanted["size"]
    ]


def _check_room(folder: Path, record: Record) -> None:
    paths = [path for name in record.files for path in (folder / name, folder / f"{name}.part")]
    here = sum(path.stat().st_size for path in paths if path.is_file())
    needed, free = record.size - here, shutil.disk_usage(folder).free
    if needed + _SPARE_BYTES > free:
        raise StoreError(
            f"{folder}: the files need {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free: give another --output"
        )


def _asking(repository: str, ask: Callable[[], Any], broke_off: str = "try again later") -> Any:
    """A call of huggingface_hub; its many errors become one line each."""
    from huggingface_hub import errors

    try:
        return ask()
    except errors.GatedRepoError:
        raise MissingRequirementError(
            f"{repository} is gated: accept its terms at https://huggingface.co/datasets/{repository}, then log in "
            "with `hf auth login` and run the same command"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(f"{repository} has no such revision: give a branch, tag or commit with --revision") from None
    except errors.RepositoryNotFoundError:
        raise MissingRequirementError(
            f"{repository} does not exist or is private: log in with `hf auth login` if it is yours to read, or give "
            "the files by hand with --data"
        ) from None
    except errors.EntryNotFoundError as error:
        raise InputError(f"{repository}: {_first_line(error)}") from None
    except OSError as error:  # HfHubHTTPError and requests that break off are among these
        if error.errno is not None and error.filename is not None:
            with writing(Path(str(error.filename))):
                raise
        raise FetchError(f"{repository}: {broke_off} ({_first_line(error)})") from None
    except Exception as error:
        # The client of the day (httpx now, requests before) has errors of its own, which are no OSError.
        if not re.match(r"(httpx|httpcore|requests|urllib3)\d*(\.|$)", type(error).__module__):
            raise
        raise FetchError(f"{repository}: {broke_off} ({_first_line(error)})") from None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
