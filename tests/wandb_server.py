"""A server that takes the beginning of a wandb run and answers everything after it with an error."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

USER = {"id": "1", "entity": "me", "username": "me", "flags": "{}", "teams": {"edges": []}, "email": "me@example.org"}
PROJECT = {"id": "1", "name": "leap", "entity": {"id": "1", "name": "me"}}
RUN = {
    "id": "1", "displayName": "n", "description": "", "config": "{}", "historyLineCount": 0, "sweepName": None,
    "project": PROJECT,
}  # fmt: skip


class _Answers(BaseHTTPRequestHandler):
    failed: list[str]
    begun: list[str]

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        found = self._data(body) if self.path == "/graphql" else None
        (self.failed if found is None else self.begun).append(self.path)
        data = json.dumps({"data": found} if found is not None else {}).encode()
        self.send_response(500 if found is None else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_PUT = do_POST

    def _data(self, body: bytes) -> dict[str, Any] | None:
        """What a login and the start of a run are told; None for anything later."""
        request = json.loads(body)
        asked = request["query"]
        if "Viewer" in asked:
            return {"viewer": USER}
        if "OrganizationCoreWeave" in asked:
            return {"entity": {"organization": None}}
        if "UpsertBucket" in asked and "run" not in self.begun:
            self.begun.append("run")
            return {"upsertBucket": {"bucket": RUN | {"name": request["variables"]["name"]}, "inserted": True}}
        return None


@contextmanager
def failing_server() -> Iterator[tuple[str, list[str]]]:
    """Its address, and the paths at which it has failed so far."""
    answers = type("Answers", (_Answers,), {"failed": [], "begun": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), answers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", answers.failed
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
