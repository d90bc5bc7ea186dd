"""A hub on 127.0.0.1 with one data set, which breaks off in the middle of a file as often as it is told."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Hub:
    """``breaks``: how many transfers end after half of what was asked for. ``status``: of every answer, if not 200.

    ``served``: (file, first byte, bytes sent) of each transfer.
    """

    repository: str
    files: dict[str, bytes]
    breaks: int = 0
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    served: list[tuple[str, int, int]] = field(default_factory=list)
    commit: str = COMMIT
    url: str = ""

    def start(self) -> ThreadingHTTPServer:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: Any) -> None: ...

            def do_HEAD(self) -> None:
                self.answer(with_body=False)

            def do_GET(self) -> None:
                self.answer(with_body=True)

            def answer(self, with_body: bool) -> None:
                path = unquote(urlsplit(self.path).path)
                if owner.status != 200:
                    self.reply(owner.status, b"{}", with_body, owner.headers)
                elif path.startswith(f"/api/datasets/{owner.repository}"):
                    self.reply(200, json.dumps(owner.info()).encode(), with_body)
                else:
                    name = path.removeprefix(f"/datasets/{owner.repository}/resolve/{owner.commit}/")
                    self.file(name, owner.files.get(name), with_body)

            def reply(self, status: int, data: bytes, with_body: bool, more: Any = None) -> None:
                self.send_response(status)
                for key, value in {"Content-Length": str(len(data)), **(more or {})}.items():
                    self.send_header(key, value)
                self.end_headers()
                if with_body:
                    self.wfile.write(data)

            def file(self, name: str, data: bytes | None, with_body: bool) -> None:
                if data is None:
                    return self.reply(404, b"", with_body, {"X-Error-Code": "EntryNotFound"})
                asked = self.headers.get("Range", "")
                start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
                about = {
                    "ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": owner.commit,
                    "Accept-Ranges": "bytes",
                }  # fmt: skip
                if start:
                    about["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                rest = data[start:]
                sent = rest
                if with_body and owner.breaks:
                    owner.breaks -= 1
                    sent = rest[: len(rest) // 2]
                self.send_response(206 if start else 200)
                for key, value in {"Content-Length": str(len(rest)), **about}.items():
                    self.send_header(key, value)
                self.end_headers()
                if with_body:
                    owner.served.append((name, start, len(sent)))
                    self.wfile.write(sent)
                    self.close_connection = True

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server

    def info(self) -> dict[str, Any]:
        siblings = [
            {
                "rfilename": name, "size": len(data), "blobId": "b",
                "lfs": {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 1},
            }
            for name, data in self.files.items()
        ]  # fmt: skip
        return {"_id": "1", "id": self.repository, "sha": self.commit, "siblings": siblings, "private": False,
                "gated": False, "tags": [], "downloads": 0, "likes": 0, "disabled": False}  # fmt: skip
