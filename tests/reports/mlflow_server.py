"""An MLflow tracking server on the loopback address that a test may kill and start again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from reports import tracking_client, tracking_db

_UP_WITHIN_S = 400.0  # on a busy machine its imports alone take minutes


class Server:
    """``uri`` stays the same over all starts; database and artifacts lie in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(self.port),
             "--workers", "1", "--backend-store-uri", tracking_db.uri_of(self.folder / "server.db"),
             "--artifacts-destination", (self.folder / "artifacts").as_uri()],
            cwd=self.folder, env={**os.environ, **tracking_client.ENVIRONMENT}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        until = time.monotonic() + _UP_WITHIN_S
        while time.monotonic() < until and self._process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.uri}/health", timeout=2):
                    return
            except OSError:
                time.sleep(0.5)
        self.kill()
        raise AssertionError("the tracking server did not come up")

    def kill(self) -> None:
        """SIGKILL to it and its workers; nothing if it does not run."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self._process.wait()
            self._process = None
