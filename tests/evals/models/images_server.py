"""An images endpoint on 127.0.0.1 that speaks the protocol, and misbehaves as it is told."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from PIL import Image

KEY = "sk-test-0123456789abcdef0123456789"


@dataclass
class Asked:
    """One POST as it arrived."""

    path: str
    body: dict[str, Any]
    headers: dict[str, str]
    at: float


def picture_of(prompt: str, number: int, size: int = 16, kind: str = "PNG") -> bytes:
    """A picture whose colour tells the prompt and the number of the request."""
    colour = (sum(prompt.encode()) % 251 + 1, number % 251 + 1, 77)
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, format=kind)
    return buffer.getvalue()


def b64(data: bytes, **more: Any) -> dict[str, Any]:
    return {"created": 1, "data": [{"b64_json": base64.b64encode(data).decode(), **more}]}


@dataclass
class ImagesServer:
    """``script`` holds what the next requests meet, in order; after its end all are served.

    An entry is a function of (handler, Asked, number), which answers by itself.
    """

    asked: list[Asked] = field(default_factory=list)
    served: list[str] = field(default_factory=list)
    script: list[Callable[[Any, Asked, int], None]] = field(default_factory=list)
    by_prompt: dict[str, Callable[[Any, Asked, int], None]] = field(default_factory=dict)
    url: str = ""
    lock: Any = field(default_factory=threading.Lock)
    at_once: int = 0
    most_at_once: int = 0
    seconds: float = 0.0

    def start(self) -> ThreadingHTTPServer:
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None: ...

            def do_GET(self) -> None:
                owner.asked.append(Asked(self.path, {}, dict(self.headers), time.monotonic()))
                reply_bytes(self, picture_of("url", 1), "image/png")

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                body = json.loads(self.rfile.read(length))
                asked = Asked(self.path, body, dict(self.headers), time.monotonic())
                with owner.lock:
                    owner.asked.append(asked)
                    number = len(owner.asked)
                    act = owner.script.pop(0) if owner.script else None
                    act = owner.by_prompt.get(body["prompt"], act)
                    owner.at_once += 1
                    owner.most_at_once = max(owner.most_at_once, owner.at_once)
                try:
                    time.sleep(owner.seconds)
                    (act or serve)(self, asked, number)
                finally:
                    with owner.lock:
                        owner.at_once -= 1
                    self.close_connection = True

            def owner(self) -> ImagesServer:
                return owner

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        return server


def reply_bytes(handler: Any, data: bytes, kind: str, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", kind)
    handler.send_header("Content-Length", str(len(data)))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(data)


def reply(status: int, value: Any, **headers: str) -> Callable[[Any, Asked, int], None]:
    """Answers with JSON."""

    def act(handler: Any, asked: Asked, number: int) -> None:
        reply_bytes(handler, json.dumps(value).encode(), "application/json", status, **headers)

    return act


def error(status: int, message: str = "", code: str | None = None, **headers: str) -> Any:
    return reply(status, {"error": {"message": message, "code": code}}, **headers)


def serve(handler: Any, asked: Asked, number: int) -> None:
    width = int(asked.body.get("size", "16x16").split("x")[0])
    handler.owner().served.append(asked.body["prompt"])
    reply(200, b64(picture_of(asked.body["prompt"], number, width)))(handler, asked, number)


def raw(data: bytes, kind: str = "application/json", **headers: str) -> Any:
    return lambda handler, asked, number: reply_bytes(handler, data, kind, **headers)


def truncated(handler: Any, asked: Asked, number: int) -> None:
    data = json.dumps(b64(picture_of("x", 1))).encode()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])


def hangs_up(handler: Any, asked: Asked, number: int) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def drips_head(handler: Any, asked: Asked, number: int) -> None:
    _drip(handler, b"HTTP/1.1 200 OK\r\nX-Slow: " + b"a" * 400)


def drips_body(handler: Any, asked: Asked, number: int) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    _drip(handler, b" " * 1000)


def _drip(handler: Any, data: bytes) -> None:
    try:
        for byte in data:
            handler.wfile.write(bytes([byte]))
            handler.wfile.flush()
            time.sleep(0.05)
    except OSError:
        pass
