"""A private PowerDNS with an empty SQLite database, and questions to it as a resolver asks them."""

import http.client
import json
import os
import signal
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import dns.message
import dns.query
import dns.rcode
import dns.rdatatype

from autorenew.local.ports import free_port
from tests.support.given import wait_until
from tests.support.servers import powerdns

KEY = "key-of-the-api-9f2c71"
NAMESERVERS = ("ns1.hosting.example", "ns2.hosting.example")
TEMPLATE = [
    {"type": "A", "content": "192.0.2.10"},
    {"type": "AAAA", "content": "2001:DB8:0:0::10"},
    {"name": "www", "type": "CNAME", "content": "{domain}."},
    {"type": "MX", "content": "10 mx.hosting.example."},
    {"name": "_service", "type": "TXT", "content": "service {service}"},
]
PARKING = [
    {"type": "A", "content": "192.0.2.99"},
    {"name": "*", "type": "A", "content": "192.0.2.99"},
    {"type": "AAAA", "content": "2001:DB8:0:0::99"},
    {"type": "TXT", "content": "v=spf1 -all"},
]


class PowerDns:
    """
    Attributes:
        url: of its API, with the version.
    """

    def __init__(self, folder: Path) -> None:
        self._program = powerdns() / "pdns_server"
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        schema = self._program.parent / "root/usr/share/pdns-backend-sqlite3/schema"
        with sqlite3.connect(folder / "zones.db") as database:
            database.executescript((schema / "schema.sqlite3.sql").read_text())
        database.close()
        self.port, self.dns_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}/api/v1"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    str(self._program),
                    "--daemon=no",
                    "--guardian=no",
                    f"--config-dir={self._folder}",
                    f"--socket-dir={self._folder}",
                    "--launch=gsqlite3",
                    f"--gsqlite3-database={self._folder}/zones.db",
                    "--gsqlite3-pragma-synchronous=0",
                    "--local-address=127.0.0.1",
                    f"--local-port={self.dns_port}",
                    "--cache-ttl=0",
                    "--query-cache-ttl=0",
                    "--negquery-cache-ttl=0",
                    "--security-poll-suffix=",
                    "--api=yes",
                    f"--api-key={KEY}",
                    "--webserver=yes",
                    "--webserver-address=127.0.0.1",
                    f"--webserver-port={self.port}",
                    "--webserver-allow-from=127.0.0.1",
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(self._is_up, "PowerDNS is up", 20)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def pause(self) -> None:
        """It takes connections and requests, and does nothing."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def api(self, method: str, path: str, body: Any = None) -> Any:
        """What its API says, as a person asks it."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            content = None if body is None else json.dumps(body)
            headers = {"X-API-Key": KEY, "Content-Type": "application/json"}
            connection.request(method, f"/api/v1/servers/localhost{path}", content, headers)
            response = connection.getresponse()
            said = response.read()
            assert response.status < 400, (method, path, response.status, said)
            return json.loads(said) if said else None
        finally:
            connection.close()

    def zones(self) -> dict[str, str]:
        """Zone -> its account."""
        return {zone["name"].rstrip("."): zone["account"] for zone in self.api("GET", "/zones")}

    def make_zone(self, name: str, *rrsets: tuple[str, str, str]) -> None:
        """A zone that is not the driver's."""
        body = {"name": f"{name}.", "kind": "Native", "nameservers": ["ns.elsewhere.example."]}
        self.api("POST", "/zones", body)
        for owner, kind, content in rrsets:
            self.put(name, owner, kind, content)

    def put(self, zone: str, name: str, kind: str, *contents: str, disabled: bool = False) -> None:
        """Set records as a customer does in a panel; no content deletes them."""
        records = [{"content": content, "disabled": disabled} for content in contents]
        change = {"name": f"{name}.", "type": kind, "ttl": 300, "changetype": "REPLACE"}
        change |= {"records": records} if records else {"changetype": "DELETE"}
        self.api("PATCH", f"/zones/{zone}.", {"rrsets": [change]})

    def ask(self, name: str, kind: str = "A") -> list[str] | str:
        """The records of an answer; without one, what it says instead: NXDOMAIN, REFUSED."""
        query = dns.message.make_query(name, kind)
        answer = dns.query.udp(query, "127.0.0.1", port=self.dns_port, timeout=5)
        if answer.rcode() != dns.rcode.NOERROR:
            return dns.rcode.to_text(answer.rcode())
        wanted = dns.rdatatype.from_text(kind)
        return sorted(
            record.to_text()
            for rrset in answer.answer
            if rrset.rdtype == wanted
            for record in rrset
        )

    def _is_up(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self._folder / "log").read_text()
        try:
            self.api("GET", "")
            return True
        except OSError:
            return False


def options(server: PowerDns, /, **changes: Any) -> dict[str, Any]:
    """Of a driver of this server."""
    return {
        "url": server.url,
        "token": KEY,
        "seconds": 10.0,
        "nameservers": NAMESERVERS,
        "templates": {"web-perso": TEMPLATE, "*": [{"type": "A", "content": "192.0.2.20"}]},
        "parking": PARKING,
    } | changes
