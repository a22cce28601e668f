"""A fake Hugging Face hub on a free port: it answers the requests of huggingface_hub, for repositories in
folders.

Large files are redirected to another host with a signed address, as the real hub redirects to its content
network.  That host supports ranges.  The hub can also cut a connection, stall, send wrong bytes, and act as a
proxy.
"""

import hashlib
import json
import re
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".safetensors", ".bin", "tokenizer.json")
"""Files that the hub stores with Git LFS."""


@dataclass
class Asked:
    """A request that the hub has received."""

    method: str
    path: str
    range: str | None
    token: str | None


@dataclass
class FakeHub:
    """
    models   name → folder
    cuts     file → bytes after which its next answer breaks off; the list is used up from its left
    stalls   file → its byte at which answers stop until `go_on` is set, however often it is asked
    wrong    files that arrive with one bit turned
    etags    file → what is claimed to be its checksum, in the listing and in headers
    names    file → what it is claimed to be called
    commit   what the revision is claimed to be
    ranges   whether the content network knows them
    """

    models: dict[str, Path]
    url: str = ""
    cuts: dict[str, list[int]] = field(default_factory=dict)
    stalls: dict[str, int] = field(default_factory=dict)
    stalled: threading.Event = field(default_factory=threading.Event)
    go_on: threading.Event = field(default_factory=threading.Event)
    wrong: set[str] = field(default_factory=set)
    etags: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    commit: str = COMMIT
    ranges: bool = True
    gated: bool = False
    status: int = 200
    asked: list[Asked] = field(default_factory=list)

    def bodies(self, name: str) -> list[str | None]:
        """The ranges of a file that were requested."""
        return [each.range for each in self.asked if each.method == "GET" and each.path == f"/cdn/{name}"]

    def files(self, model: str) -> dict[str, bytes]:
        folder = self.models[model]
        paths = (path for path in sorted(folder.rglob("*")) if path.is_file())
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def etag(name: str, content: bytes) -> str:
    if name.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def listing(hub: FakeHub, model: str) -> dict:
    siblings = []
    for name, content in hub.files(model).items():
        claimed = hub.etags.get(name, etag(name, content))
        entry = {"rfilename": hub.names.get(name, name), "size": len(content), "blobId": claimed}
        if name.endswith(LARGE):
            entry["blobId"] = "f" * 40
            entry["lfs"] = {"size": len(content), "sha256": claimed, "pointerSize": 130}
        siblings.append(entry)
    return {
        "id": model,
        "modelId": model,
        "sha": hub.commit,
        "siblings": siblings,
        "tags": [],
        "private": False,
    }


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: FakeHub

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub, path = self.hub, unquote(urlsplit(self.path).path)  # a proxy is asked for whole addresses
        self.hub.asked.append(Asked(self.command, path, self.headers["Range"], self.headers["Authorization"]))
        if hub.status != 200:
            self.send(hub.status, b"no", {})
        elif path.startswith("/cdn/"):
            self.send_from_content_network(path.removeprefix("/cdn/"))
        elif found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/([^/]+)", path):
            self.send_listing(*found.groups())
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self.send_file(*found.groups())
        else:
            self.send(404, b"{}", {})

    def send_listing(self, model, revision):
        if model not in self.hub.models:
            self.send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif self.hub.gated and not self.headers["Authorization"]:
            self.send(401, b"{}", {"X-Error-Code": "GatedRepo"})
        elif revision not in ("main", COMMIT):
            self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            self.send(200, json.dumps(listing(self.hub, model)).encode(), {})

    def send_file(self, model, revision, name):
        content = self.hub.files(model).get(name)
        if content is None:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        about = {"X-Repo-Commit": COMMIT, "ETag": f'"{self.hub.etags.get(name, etag(name, content))}"'}
        if not name.endswith(LARGE):
            return self.send(200, content, about)
        port = self.server.server_address[1]
        self.send(302, b"", about | {
            "X-Linked-Etag": about["ETag"],
            "X-Linked-Size": str(len(content)),
            "X-Xet-Hash": "a" * 64,
            "Link": f'<{self.hub.url}/api/models/{model}/xet-read-token/{COMMIT}>; rel="xet-auth"',
            "Location": f"http://localhost:{port}/cdn/{model}/{name}?signature=x",
        })  # fmt: skip

    def send_from_content_network(self, place):
        hub = self.hub
        model, name = re.fullmatch(r"([^/]+/[^/]+)/(.+)", place).groups()
        content = hub.files(model)[name]
        if name in hub.wrong:
            content = bytes([content[0] ^ 1]) + content[1:]
        start = 0
        if hub.ranges and (asked := re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")):
            start = int(asked[1])
        about = {"ETag": '"of the content network"', "Accept-Ranges": "bytes"}
        if start:
            about["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206 if start else 200, content[start:], about, name, start)

    def send(self, status, content, headers, name="", start=0):
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        hub = self.hub
        if hub.cuts.get(name):
            self.wfile.write(content[: hub.cuts[name].pop(0)])
            self.close_connection = True
            return
        if name in hub.stalls:
            before = max(0, hub.stalls[name] - start)
            self.wfile.write(content[:before])
            hub.stalled.set()
            hub.go_on.wait(60)
            content = content[before:]
        try:
            self.wfile.write(content)
        except OSError:
            self.close_connection = True  # the client was killed

    def log_message(self, *_):
        pass


@contextmanager
def serving(models: dict[str, Path]):
    hub = FakeHub(models)
    handler = type("Handler", (Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
