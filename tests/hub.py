"""A server in the protocol of the Hugging Face hub, on this machine, with the faults that downloads meet."""

import base64
import contextlib
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
LARGE = (".bin", ".ckpt", ".safetensors", ".pth", ".pt", ".model", "audioldm-s-full")


@dataclass
class Hub:
    """The server's files and faults.

    Attributes:
        repositories: Content of files by repository and path.
        public: Repositories that everyone can read.
        objects: Content of large files by sha256: what was put there before the commit that names it.
        breaks: Bytes after which connections break, one after the other; None is a 503 in place of an answer.
        refused: Status by repository; by `objects` of the large files that are put.
        requests: What was asked for: method, path and the header Range.
    """

    address: str = ""
    repositories: dict[str, dict[str, bytes]] = field(default_factory=dict)
    public: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)
    breaks: list[int | None] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)

    def ranges(self) -> list[str]:
        """The ranges of all files that were asked for."""
        return [span for method, path, span in self.requests if method == "GET" and "/resolve/" in path]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        """Make a repository, say how files are uploaded, and take a commit with their content or names."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(("POST", path, self.headers.get("Authorization", "")))
        words = path.strip("/").split("/")
        told: Any = {}
        if path == "/api/repos/create":
            asked = json.loads(body)
            repository = "/".join(filter(None, (asked.get("organization", ""), asked["name"])))
            if status := self.hub.refused.get(repository):
                return self.send(status, b'{"error": "Invalid username or password."}')
            told = {"url": f"{self.hub.address}/{repository}"}
            if repository in self.hub.repositories:
                return self.send(409, json.dumps(told).encode())
            self.hub.repositories[repository] = {}
            if not asked.get("private") and asked.get("visibility") != "private":
                self.hub.public.add(repository)
        elif words[-2:] == ["api", "validate-yaml"]:
            told = {"errors": [], "warnings": []}
        elif words[-2:] == ["objects", "batch"]:
            told = {"transfer": "basic", "objects": []}
            for each in json.loads(body)["objects"]:
                there = each["oid"] in self.hub.objects
                action = {"upload": {"href": f"{self.hub.address}/objects/{each['oid']}"}}
                told["objects"].append({**each, **({} if there else {"actions": action})})
        elif words[4] == "preupload":
            told = {"files": []}
            for each in json.loads(body)["files"]:
                mode = "lfs" if each["path"].endswith(LARGE) else "regular"
                told["files"].append({"path": each["path"], "uploadMode": mode, "shouldIgnore": False})
        elif words[4] == "commit":
            repository = "/".join(words[2:4])
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    self.hub.repositories[repository][value["path"]] = base64.b64decode(value["content"])
                elif line["key"] == "lfsFile":
                    self.hub.repositories[repository][value["path"]] = self.hub.objects[value["oid"]]
            told = {"commitUrl": f"{self.hub.address}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}
        self.send(200, json.dumps(told).encode(), {"Content-Type": "application/json"})

    def do_PUT(self) -> None:
        """Keep a large file, if it has the hash that was announced."""
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.hub.requests.append(("PUT", self.path, self.headers.get("Authorization", "")))
        sha256 = self.path.rpartition("/")[2]
        if "objects" in self.hub.refused:
            return self.send(self.hub.refused["objects"], b"")
        if hashlib.sha256(content).hexdigest() != sha256:
            return self.send(400, b"")
        self.hub.objects[sha256] = content
        self.send(200, b"")

    def answer(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self.headers.get("Range", "")))
        words = path.strip("/").split("/")
        if words[:2] == ["api", "models"]:
            repository = "/".join(words[2:4])
        else:
            repository = "/".join(words[:2])
        if status := self.hub.refused.get(repository):
            gated = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."}
            return self.send(status, b"", gated)
        files = self.hub.repositories.get(repository)
        if files is None:
            return self.send(401, b"", {"X-Error-Code": "RepoNotFound"})
        if words[:2] == ["api", "models"]:
            return self.describe(repository, files, words)
        return self.give(files, "/".join(words[4:]))

    def describe(self, repository: str, files: dict[str, bytes], words: list[str]) -> None:
        if "tree" in words:
            listed: Any = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
        else:
            siblings = [{"rfilename": name} for name in files]
            listed = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings}
            listed["private"] = repository not in self.hub.public
        self.send(200, json.dumps(listed).encode(), {"Content-Type": "application/json"})

    def give(self, files: dict[str, bytes], name: str) -> None:
        if name not in files:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"})
        content = files[name]
        headers = {"X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        if name.endswith(LARGE):
            headers |= {
                "ETag": f'"{hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
            }
        else:
            headers["ETag"] = f'"{hashlib.sha1(content).hexdigest()}"'
        if self.command == "HEAD":
            return self.send(200, content, headers)
        cut = self.hub.breaks.pop(0) if self.hub.breaks else len(content)
        if cut is None:
            return self.send(503, b"")
        span = self.headers.get("Range", "")
        first = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        if span and first >= len(content):
            return self.send(416, b"", {"Content-Range": f"bytes */{len(content)}"})
        if span:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self.send(206 if span else 200, content[first:], headers, cut=cut)

    def send(
        self, status: int, content: bytes, headers: dict[str, str] | None = None, cut: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut is not None and cut < len(content):
            self.close_connection = True
            content = content[:cut]
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(content)


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
    """A running server without files."""
    hub = Hub()
    handler = type("_Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
