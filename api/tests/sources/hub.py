"""A stand-in for EOTDL: a real HTTP server in a process of its own, on loopback.

Three ports: the API, the object store that its presigned links lead to, and a canary that nobody should ever call.
`start_hub` runs it and gives a `Hub`, through which a test publishes models, asks for faults and reads what was called.
That it answers as EOTDL does is shown in test_hub.py, by running the published client against it.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, quote, unquote, urlsplit

KEY = "a-key-that-the-hub-knows"
SALT = b"the store's own secret"


class Hub:
    """The running stand-in, as a test sees it."""

    def __init__(self, process: subprocess.Popen, root: Path, ports: dict[str, int]) -> None:
        self.process = process
        self.root = root
        self.url = f"http://127.0.0.1:{ports['api']}/"
        self.store_url = f"http://127.0.0.1:{ports['store']}/"
        self.store_host = f"127.0.0.1:{ports['store']}"
        self.canary_url = f"http://127.0.0.1:{ports['canary']}/"
        self.canary_host = f"127.0.0.1:{ports['canary']}"

    def publish(
        self, name: str, versions: dict[int, list[dict]], files: dict[str, bytes], model_id: str = ""
    ) -> str:
        """List a model with its versions' items, and store its files; gives the model's id."""
        import pyarrow as pa  # noqa: PLC0415 - the server's own process starts faster without
        from pyarrow import parquet  # noqa: PLC0415 - as above

        model_id = model_id or hashlib.md5(name.encode()).hexdigest()[:24]
        folder = self.root / model_id
        folder.mkdir(parents=True, exist_ok=True)
        for path, data in files.items():
            (folder / path).write_bytes(data)
        for version, items in versions.items():
            rows = [_row(item) for item in items]
            columns = {key: pa.array([row.get(key) for row in rows]) for row in rows for key in row}
            parquet.write_table(pa.table(columns), folder / f"catalog.v{version}.parquet")
        self.list_model(name, model_id, sorted(versions))
        return model_id

    def publish_onnx(self, name: str, *models: bytes, asset: dict | None = None) -> str:
        """Publish ONNX bytes as versions 1, 2, … of a model, described as EOTDL describes its own."""
        model_id = hashlib.md5(name.encode()).hexdigest()[:24]
        versions, files = {}, {}
        for version, data in enumerate(models, start=1):
            file = "model.onnx" if version == 1 else f"model.onnx-{version}"
            href = f"{self.url}models/{model_id}/stage/{file}"
            promised = {"href": href, "checksum": hashlib.sha1(data).hexdigest(), "size": len(data)}
            versions[version] = [eotdl_item(promised | (asset or {}))]
            files[file] = data
        return self.publish(name, versions, files, model_id)

    def list_model(self, name: str, model_id: str, versions: list[int], *, active: bool = True) -> None:
        listed = [{"version_id": v, "createdAt": "2024-06-18T15:14:52", "size": 1} for v in versions]
        self._admin("model", {"id": model_id, "name": name, "uid": "u", "versions": listed, "active": active})

    def fault(self, where: str, path: str = "", *, times: int = 1, **do: object) -> None:
        """Let the next `times` calls whose path matches go wrong; see `_Handler.misbehave` for the ways."""
        self._admin("fault", {"where": where, "path": path, "times": times, "do": do})

    def behave(self) -> None:
        """Let nothing go wrong any more."""
        self._admin("behave", {})

    def settings(self, **values: object) -> None:
        """Set `link_seconds` (how long a link holds) or `key`."""
        self._admin("settings", values)

    def calls(self, where: str, path: str = "") -> list[dict]:
        """Give the calls that came, in order: method, path, key, authorization, range, if_range, status."""
        log = self._admin("log", {})
        return [call for call in log if call["where"] == where and re.search(path, call["path"])]

    def stop(self) -> None:
        """Go away: connections are refused from now on."""
        self.process.kill()
        self.process.wait()

    def freeze(self) -> None:
        """Take calls and never answer, until `thaw`."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def _admin(self, call: str, body: dict) -> list[dict]:
        request = urllib.request.Request(f"{self.url}_admin/{call}", json.dumps(body).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)


@contextmanager
def start_hub(root: Path):
    """Run the stand-in over a folder of files; it ends with the block."""
    command = [sys.executable, str(Path(__file__)), "--root", str(root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Hub(process, root, json.loads(process.stdout.readline()))
        finally:
            process.kill()


def eotdl_item(asset: dict, key: str = "asset") -> dict:
    """Describe a model as EOTDL's items do: objects instead of lists, no roles, an empty place on Earth."""
    shape = {"shape": [-1, 3], "dim_order": ["batch", "channel"], "data_type": "float32"}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "stac_extensions": ["https://crim-ca.github.io/mlm-extension/v1.2.0/schema.json"],
        "id": "model.onnx",
        "links": [],
        "assets": {key: asset},
        "properties": {
            "datetime": "2025-03-25T13:50:10.049061Z",
            "mlm:name": "model.onnx",
            "mlm:framework": "ONNX",
            "mlm:architecture": "Identity",
            "mlm:tasks": ["classification"],
            "mlm:input": {"name": "three numbers", "bands": ["red", "green", "blue"], "input": shape},
            "mlm:output": {"name": "the same", "tasks": ["classification"], "result": shape},
        },
    }


def _row(item: dict) -> dict:
    """Lay an item out as a row of the catalogue: properties become columns, the geometry WKB."""
    top = {key: value for key, value in item.items() if key not in {"properties", "geometry"}}
    empty_polygon = bytes.fromhex("010300000000000000")
    return top | {"geometry": empty_polygon} | item["properties"]


# --- the server's side ------------------------------------------------------------------------------------------------


@dataclass
class State:
    root: Path
    key: str = KEY
    link_seconds: float = 3600.0
    models: dict[str, dict] = field(default_factory=dict)
    faults: list[dict] = field(default_factory=list)
    log: list[dict] = field(default_factory=list)
    ports: dict[str, int] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take_fault(self, where: str, path: str) -> dict:
        with self.lock:
            for fault in self.faults:
                if fault["times"] > 0 and fault["where"] == where and re.search(fault["path"], path):
                    fault["times"] -= 1
                    return fault["do"]
        return {}

    def sign(self, path: str, until: float) -> str:
        return hmac.new(SALT, f"{path} {until}".encode(), "sha256").hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "stand-in"
    where = ""
    state: State
    fault: dict

    def do_GET(self) -> None:
        self.path_only = unquote(urlsplit(self.path).path)
        self.query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        self.fault = self.state.take_fault(self.where, self.path)
        self.close_connection = True
        try:
            if not self.misbehave():
                self.answer()
        except (BrokenPipeError, ConnectionResetError):
            return

    def do_HEAD(self) -> None:
        self.do_GET()

    def misbehave(self) -> bool:
        """Go wrong instead of answering: `hang`, `status` with `body` and `type`, `redirect`, `drip_head`.

        Other faults change the answer: `cut` it after so many bytes, `drip` so many bytes and then one each second,
        `flip` a byte, `link` to elsewhere, hand out a link that is `expired`, claim an `encoding`, hide the `validator`.
        """
        do = self.fault
        time.sleep(do.get("hang", 0))
        if "status" in do:
            self.send(do["status"], do.get("body", "{}").encode(), do.get("type", "application/json"))
        elif "redirect" in do:
            self.send(302, b"", headers={"Location": do["redirect"]})
        elif "drip_head" in do:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            for _ in range(600):
                self.wfile.write(b"z")
                time.sleep(do["drip_head"])
        return bool({"status", "redirect", "drip_head"} & set(do))

    def send(
        self, status: int, body: bytes, kind: str = "application/json", headers: dict | None = None
    ) -> None:
        self.note(status)
        self.send_response(status)
        head = {"Content-Type": kind, "Content-Length": len(body), "Connection": "close"} | (headers or {})
        for name, value in head.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.write(body)

    def write(self, body: bytes) -> None:
        if self.command == "HEAD":
            return
        if "cut" in self.fault:
            body = body[: self.fault["cut"]]
        whole = len(body) if "drip" not in self.fault else self.fault["drip"]
        self.wfile.write(body[:whole])
        for byte in body[whole:]:
            self.wfile.write(bytes([byte]))
            time.sleep(self.fault.get("pace", 1))

    def note(self, status: int) -> None:
        seen = {
            "where": self.where,
            "method": self.command,
            "path": self.path,
            "key": self.headers.get("X-API-Key"),
            "authorization": self.headers.get("Authorization"),
            "range": self.headers.get("Range"),
            "if_range": self.headers.get("If-Range"),
            "status": status,
        }
        with self.state.lock:
            self.state.log.append(seen)

    def log_message(self, *_: object) -> None:
        """Stay silent: the calls are read through `/_admin/log`."""


class Api(_Handler):
    where = "api"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.fault, self.close_connection, call = {}, True, self.path.rsplit("/", 1)[-1]
        with self.state.lock:
            if call == "model":
                self.state.models[body["name"]] = body
            elif call == "fault":
                self.state.faults.append(body)
            elif call == "behave":
                self.state.faults.clear()
            elif call == "settings":
                vars(self.state).update(body)
            answer = list(self.state.log)
        data = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def answer(self) -> None:
        if self.path_only == "/models":
            self.models()
        elif match := re.fullmatch(r"/(?:models|datasets)/([^/]+)/stage/(.+)", self.path_only):
            self.stage(match[1], match[2])
        else:
            self.detail(404, "Not Found")

    def detail(self, status: int, detail: object) -> None:
        self.send(status, json.dumps({"detail": detail}).encode())

    def models(self) -> None:
        if "name" not in self.query:
            pattern = re.compile(self.query.get("match", ""), re.IGNORECASE)
            found = [m for n, m in self.state.models.items() if pattern.search(n)]
            self.send(200, json.dumps(found[: int(self.query.get("limit", "100"))]).encode())
            return
        model = self.state.models.get(self.query["name"])
        if model is None:
            self.detail(409, "Model doesn't exist")
        elif not model["active"]:
            self.detail(409, "Requested model(s) not active")
        else:
            self.send(200, json.dumps(model).encode())

    def stage(self, model_id: str, path: str) -> None:
        if self.headers.get("X-API-Key") is None:
            self.detail(401, "Not authenticated")
        elif self.headers["X-API-Key"] != self.state.key:
            self.detail(401, "Invalid API key")
        elif not (self.state.root / model_id / path).is_file():
            self.detail(409, f"File `{path}` does not exist")
        else:
            self.send(
                200,
                json.dumps({"presigned_url": self.fault.get("link") or self.link(model_id, path)}).encode(),
            )

    def link(self, model_id: str, path: str) -> str:
        where = f"/eotdl/{model_id}/{path}"
        until = time.time() + (-1 if "expired" in self.fault else self.state.link_seconds)
        signature = self.state.sign(where, until)
        port = self.state.ports["store"]
        return f"http://127.0.0.1:{port}{quote(where)}?X-Amz-Until={until}&X-Amz-Signature={signature}"


class Store(_Handler):
    """As an S3 store answers to signed GETs: XML errors, ranges, entity tags; a link is bound to its method."""

    where = "store"

    def answer(self) -> None:
        until = float(self.query.get("X-Amz-Until", 0))
        right = hmac.compare_digest(
            self.state.sign(self.path_only, until), self.query.get("X-Amz-Signature", "")
        )
        path = self.state.root / self.path_only.removeprefix("/eotdl/")
        if not right or self.command != "GET":
            self.error(403, "SignatureDoesNotMatch", "The signature does not match")
        elif until < time.time():
            self.error(403, "AccessDenied", "Request has expired")
        elif not path.is_file():
            self.error(404, "NoSuchKey", "The specified key does not exist")
        else:
            self.file(path)

    def error(self, status: int, code: str, message: str) -> None:
        xml = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
        self.send(status, xml.encode(), "application/xml")

    def file(self, path: Path) -> None:
        data = path.read_bytes()
        tag = f'"{hashlib.md5(data).hexdigest()}"'
        if "flip" in self.fault:
            at = self.fault["flip"]
            data = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        headers = {"Accept-Ranges": "bytes"}
        if "validator" not in self.fault:
            headers |= {"ETag": tag, "Last-Modified": formatdate(path.stat().st_mtime, usegmt=True)}
        if "encoding" in self.fault:
            headers["Content-Encoding"] = self.fault["encoding"]
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        start = int(asked[1]) if asked and self.headers.get("If-Range", tag) == tag else 0
        if start and start >= len(data):
            self.error(416, "InvalidRange", "The requested range is not satisfiable")
        elif start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            self.send(206, data[start:], "application/octet-stream", headers)
        else:
            self.send(200, data, "application/octet-stream", headers)


class Canary(_Handler):
    """Another host's server, which answers whatever is asked."""

    where = "canary"

    def answer(self) -> None:
        self.send(200, b'{"presigned_url": "http://169.254.169.254/latest/meta-data/"}')


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", type=Path, required=True)
    state = State(parser.parse_args().root)
    servers = {}
    for handler in (Api, Store, Canary):
        handler.state = state
        servers[handler.where] = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    state.ports = {where: server.server_address[1] for where, server in servers.items()}
    for server in servers.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps(state.ports), flush=True)  # noqa: T201 - how the parent learns the ports
    threading.Event().wait()


if __name__ == "__main__":
    main()
