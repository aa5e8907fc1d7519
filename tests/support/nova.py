"""As much of OpenStack's compute API (version 2.1) as the driver of virtual machines uses.

https://docs.openstack.org/api-ref/compute/. No OpenStack can run here; this holds the driver to the
requests and the shapes of that document.
"""

import json
import threading
import uuid
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "token-of-the-project"


class Nova:
    """
    Attributes:
        url: where it is.
        servers: those that exist, by id.
        fails: machines that are made end in error.
        is_locked: no machine can be started or stopped just now.
    """

    def __init__(self) -> None:
        self.servers: dict[str, dict[str, Any]] = {}
        self.fails = False
        self.is_locked = False
        nova = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                status, answer = 401, {"unauthorized": {"code": 401, "message": "sign in"}}
                if self.headers.get("X-Auth-Token") == TOKEN:
                    asked = json.loads(body) if body else None
                    parts = self.path.partition("?")[0].split("/")[3:]
                    status, answer = nova._do(self.command, parts, asked)
                content = json.dumps(answer).encode() if answer is not None else b""
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = _answer  # noqa: N815 - of the standard library

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def __enter__(self) -> "Nova":
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join(5)
        self._server.server_close()

    def _do(self, method: str, parts: list[str], asked: Any) -> tuple[int, Any]:
        match method, parts:
            case "GET", ["servers", "detail"]:
                return 200, {"servers": list(self.servers.values())}
            case "POST", ["servers"]:
                new = asked["server"]
                metadata = new.get("metadata")
                return self.make(new["name"], new["flavorRef"], new["imageRef"], metadata)
            case _, ["servers", known, *_] if known not in self.servers:
                return 404, {"itemNotFound": {"code": 404, "message": "no such server"}}
            case "GET", ["servers", known]:
                return 200, {"server": self.servers[known]}
            case "PUT", ["servers", known, "metadata"]:
                self.servers[known]["metadata"] = asked["metadata"]
                return 200, asked
            case "DELETE", ["servers", known]:
                del self.servers[known]
                return 204, None
            case "POST", ["servers", known, "action"]:
                (action,) = asked
                status = {"os-start": "ACTIVE", "os-stop": "SHUTOFF"}[action]
                if self.servers[known]["status"] == status or self.is_locked:
                    conflict = {"code": 409, "message": f"Cannot '{action}' in this vm_state"}
                    return 409, {"conflictingRequest": conflict}
                self.servers[known]["status"] = status
                return 202, None
        return 404, {"itemNotFound": {"code": 404, "message": "no such page"}}

    def make(
        self, name: str, size: str, image: str, metadata: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        if size == "huge":
            words = "Quota exceeded for cores: Requested 512, but already used 0 of 20 cores"
            return 403, {"forbidden": {"code": 403, "message": words}}
        made, now = str(uuid.uuid4()), datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.servers[made] = {
            "id": made,
            "name": name,
            "status": "ERROR" if self.fails else "ACTIVE",
            "metadata": metadata or {},
            "addresses": {"public": [{"addr": "203.0.113.7", "version": 4}]},
            "created": now,
            "updated": now,
            "hostId": "host-1",
            "tenant_id": "project-1",
            "user_id": "user-1",
            "links": [{"rel": "self", "href": f"{self.url}/v2.1/p/servers/{made}"}],
            "flavor": {"id": size},
            "image": {"id": image},
            "key_name": None,
            "accessIPv4": "",
            "accessIPv6": "",
            "OS-EXT-STS:vm_state": "active",
        }
        links = self.servers[made]["links"]
        return 202, {"server": {"id": made, "links": links, "adminPass": "pw-that-nobody-keeps"}}
