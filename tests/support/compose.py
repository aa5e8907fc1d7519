"""docker-compose.yml on podman: what of the Compose specification the file uses, and nothing else.

podman leaves health checks to systemd, and Docker is not there. So the file is carried out here:
names, networks, volumes, configurations, limits, privileges, health checks, the order of starting.
A key that is not known raises, so that nothing of the file is left out unseen.
"""

import json
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

_VARIABLE = re.compile(r"\$(?:\$|\{(\w+)(?::([-?])([^}]*))?\})")
_SERVICE = frozenset({
    "build", "cap_drop", "command", "configs", "depends_on", "deploy", "entrypoint", "environment",
    "expose", "healthcheck", "hostname", "image", "init", "networks", "ports", "profiles",
    "read_only", "restart", "security_opt", "stop_grace_period", "stop_signal", "tmpfs", "user",
    "volumes",
})  # fmt: skip
_HEALTH = {"test", "interval", "timeout", "retries", "start_period"}


def seconds(duration: str) -> float:
    """A duration of the Compose specification, such as ``1m30s``."""
    match = re.fullmatch(r"(?:(\d+)m)?(?:(\d+)s)?", duration)
    assert match, duration
    return 60 * int(match[1] or 0) + int(match[2] or 0)


def interpolated(value: Any, variables: Mapping[str, str]) -> Any:
    """A value of the file with its variables replaced.

    Raises:
        LookupError: a variable that must be set is not; the message is the file's.
    """

    def given(variable: re.Match[str]) -> str:
        name, kind, default = variable.groups()
        if name is None:
            return "$"
        if found := variables.get(name):
            return found
        if kind == "?":
            raise LookupError(f"{name}: {default}")
        return default or ""

    if isinstance(value, str):
        return _VARIABLE.sub(given, value)
    if isinstance(value, Mapping):
        return {key: interpolated(item, variables) for key, item in value.items()}
    if isinstance(value, list):
        return [interpolated(item, variables) for item in value]
    return value


class Composition:
    """A project of the file, with names of its own.

    Args:
        podman: the program.
        file: docker-compose.yml.
        images: names of public images without their tags -> what stands for them here. A service
            whose image is not among them is left out.
        variables: what ``.env`` would say.
        folder: where contents of configurations are written.
        project: goes in front of every name.
    """

    def __init__(
        self,
        podman: Path,
        file: Path,
        *,
        images: Mapping[str, str],
        variables: Mapping[str, str],
        folder: Path,
        project: str,
    ) -> None:
        document = YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8"))
        document = interpolated(
            {name: part for name, part in document.items() if not name.startswith("x-")}, variables
        )
        self._podman = str(podman)
        self._root = file.parent
        self._images = images
        self._folder = folder
        self.project = project
        self._networks = list(document["networks"])
        self._volumes = list(document["volumes"])
        self._configs: dict[str, Any] = document.get("configs", {})
        self.services: dict[str, dict[str, Any]] = {}
        self.left_out: set[str] = set()
        for name, service in document["services"].items():
            if unknown := set(service) - _SERVICE:
                raise NotImplementedError(f"{name}: {', '.join(sorted(unknown))}")
            if "build" in service or self._public(service) in images:
                self.services[name] = service
            else:
                self.left_out.add(name)
        self._running: dict[str, list[str]] = {name: [] for name in self.services}
        self._made = 0
        self._built = ""

    # --- what exists ---

    def create(self) -> None:
        """Build the image of the project; make networks and volumes."""
        (image,) = {s["image"] for s in self.services.values() if "build" in s}
        recipe = (self._root / "Dockerfile").read_text()
        bases = [
            f"--build-context={base}=container-image://{self._images[base.partition(':')[0]]}"
            for base in sorted(set(re.findall(r"^FROM (\S+)", recipe, re.M)))
        ]
        build = ("build", "--quiet", "--layers", "--isolation", "chroot", *bases)
        # A stage without a name of its own would be pruned, and built anew by every run.
        for stage in re.findall(r"^FROM \S+ AS (\S+)", recipe, re.M):
            tag = f"localhost/{image}-{stage}"
            self.podman(*build, "--target", stage, "--tag", tag, str(self._root), timeout=900)
        built = self.podman(*build, "--tag", f"localhost/{image}", str(self._root), timeout=900)
        self._built = built.split()[-1]
        self.podman("image", "prune", "--force")  # what builds before this one left
        for network in self._networks:
            self.podman("network", "create", f"{self.project}_{network}")
        for volume in self._volumes:
            self.podman("volume", "create", f"{self.project}_{volume}")

    def remove(self) -> None:
        """Everything that was made here, by its name; the images stay."""
        containers = self.podman(
            "ps", "--all", "--quiet", "--filter", f"label=project={self.project}"
        ).split()
        if containers:
            self.podman("rm", "--force", "--time", "0", *containers, timeout=120)
        for kind, names in (("network", self._networks), ("volume", self._volumes)):
            for name in names:
                self.podman(kind, "rm", "--force", f"{self.project}_{name}", check=False)

    # --- starting, in order ---

    def up(self, names: Iterable[str] | None = None) -> None:
        """Start services with all that they need, as soon as that is ready.

        Args:
            names: all without a profile if it is not given.
        """
        waiting = set()
        wanted = list(names or (n for n, s in self.services.items() if "profiles" not in s))
        while wanted:
            name = wanted.pop()
            if name not in waiting and not self._running[name]:
                waiting.add(name)
                wanted += self._needs(name)
        with ThreadPoolExecutor(4) as pool:
            while waiting:
                ready = {name for name in waiting if not waiting & set(self._needs(name))}
                assert ready, f"services wait for each other: {waiting}"
                for _ in pool.map(self._start_when_ready, sorted(ready)):
                    pass
                waiting -= ready

    def _needs(self, name: str) -> dict[str, str]:
        """What a service depends on -> the condition."""
        needs = self.services[name].get("depends_on") or {}
        return {other: how["condition"] for other, how in needs.items()}

    def _start_when_ready(self, name: str) -> None:
        for other, condition in self._needs(name).items():
            if condition == "service_healthy":
                self.wait_healthy(other)
            elif condition == "service_completed_successfully":
                self._wait_done(other)
            else:
                assert condition == "service_started", condition
        self.start(name)

    def start(self, name: str) -> str:
        """One more container of a service; returns its name."""
        service = self.services[name]
        number = len(self._running[name]) + 1
        self._made += 1
        container = f"{self.project}-{name}-{number}-{self._made}"
        words, environment = self._options(name, service)
        self.podman(
            "run", "--detach", "--name", container, "--label", f"project={self.project}",
            *words, self._image(service), *service.get("command", []),
            environment=environment, timeout=120,
        )  # fmt: skip
        self._running[name].append(container)
        return container

    def run(self, name: str, *command: str, codes: Iterable[int] = (0,)) -> str:
        """A container for one command that is awaited, as ``docker compose run --rm``."""
        service = self.services[name]
        words, environment = self._options(name, service)
        return self.podman(
            "run", "--rm", "--name", f"{self.project}-{name}-run", "--label",
            f"project={self.project}", *words, self._image(service),
            *(command or service.get("command", [])),
            environment=environment, timeout=120, codes=codes,
        )  # fmt: skip

    def scale(self, name: str, number: int) -> None:
        running = self._running[name]
        while len(running) < number:
            self.start(name)
        for container in running[number:]:
            self.stop(container)

    # --- looking and touching ---

    def containers(self, name: str) -> list[str]:
        return list(self._running[name])

    def exec(self, name: str, *command: str, given: str = "", codes: Iterable[int] = (0,)) -> str:
        """A command in the first container of a service."""
        return self.podman("exec", "--interactive", self._running[name][0], *command,
                           given=given, codes=codes)  # fmt: skip

    def stop(self, container: str) -> int:
        """SIGTERM, and SIGKILL when the grace is over; returns the exit code."""
        name = self._service_of(container)
        grace = seconds(self.services[name].get("stop_grace_period", "10s"))
        self.podman("stop", "--time", str(int(grace)), container, timeout=grace + 30)
        self._running[name].remove(container)
        return int(self.inspect(container)["State"]["ExitCode"])

    def inspect(self, container: str) -> dict[str, Any]:
        (found,) = json.loads(self.podman("inspect", container))
        assert isinstance(found, dict)
        return found

    def logs(self, name: str) -> str:
        return "\n".join(self.podman("logs", c, both=True) for c in self._running[name])

    def stats(self) -> dict[str, tuple[float, float]]:
        """Service -> (seconds of CPU so far, MB of memory now), of its first container."""
        found = {}
        for name, containers in self._running.items():
            if not containers or not self.inspect(containers[0])["State"]["Running"]:
                continue
            group = Path("/sys/fs/cgroup")
            pid = self.inspect(containers[0])["State"]["Pid"]
            paths = {
                controller: path
                for _, controllers, path in (
                    line.split(":", 2)
                    for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()
                )
                for controller in controllers.split(",")
            }
            cpu = (group / f"cpuacct/{paths['cpuacct']}/cpuacct.usage").read_text()
            memory = (group / f"memory/{paths['memory']}/memory.stat").read_text()
            rss = dict(line.split() for line in memory.splitlines())["total_rss"]
            found[name] = (int(cpu) / 1e9, int(rss) / 1e6)
        return found

    def is_healthy(self, container: str) -> bool:
        """Whether the service's health check passes now."""
        check = self.services[self._service_of(container)]["healthcheck"]
        assert set(check) <= _HEALTH
        kind, *command = check["test"]
        assert kind == "CMD"
        done = self._call("exec", container, *command, timeout=60)
        return done.returncode == 0

    def wait_healthy(self, name: str) -> None:
        """Raises AssertionError once the container has ended, or the check's time is over."""
        check = self.services[name]["healthcheck"]
        patience = (
            60 + seconds(check["start_period"]) + check["retries"] * seconds(check["interval"])
        )
        end = time.monotonic() + patience
        for container in self._running[name]:
            while not self.is_healthy(container):
                state = self.inspect(container)["State"]
                assert state["Running"], f"{name} ended: {self.logs(name)[-2000:]}"
                assert time.monotonic() < end, f"{name} is unhealthy: {self.logs(name)[-2000:]}"
                time.sleep(0.3)

    def _wait_done(self, name: str) -> None:
        (container,) = self._running[name]
        code = int(self.podman("wait", container, timeout=180))
        assert code == 0, f"{name} ended with {code}: {self.logs(name)[-2000:]}"

    # --- a service in podman's words ---

    def _options(self, name: str, service: dict[str, Any]) -> tuple[list[str], dict[str, str]]:
        words: list[str] = []
        for network in service["networks"]:
            words += ["--network", f"{self.project}_{network}:alias={name}"]
        environment = {key: str(item) for key, item in service.get("environment", {}).items()}
        for key in environment:
            words += ["--env", key]
        for option, key in (
            ("--cap-drop", "cap_drop"), ("--security-opt", "security_opt"), ("--tmpfs", "tmpfs"),
            ("--publish", "ports"), ("--expose", "expose"),
        ):  # fmt: skip
            for item in service.get(key, []):
                words += [option, str(item)]
        for option, key in (
            ("--user", "user"), ("--hostname", "hostname"), ("--stop-signal", "stop_signal"),
            ("--restart", "restart"),
        ):  # fmt: skip
            if key in service:
                words += [option, str(service[key])]
        words += [f"--{option}" for option, key in (("init", "init"), ("read-only", "read_only"))
                  if service.get(key)]  # fmt: skip
        if "entrypoint" in service:
            words += ["--entrypoint", json.dumps(service["entrypoint"])]
        limits = service["deploy"]["resources"]["limits"]
        assert set(limits) <= {"cpus", "memory"}
        words += ["--cpus", limits["cpus"], "--memory", limits["memory"].lower()]
        for volume in service.get("volumes", []):
            source, _, rest = volume.partition(":")
            where = f"{self.project}_{source}" if source in self._volumes else self._host(source)
            words += ["--volume", f"{where}:{rest}"]
        for config in service.get("configs", []):
            words += ["--volume", f"{self._config(config['source'])}:{config['target']}:ro"]
        return words, environment

    def _config(self, name: str) -> Path:
        config = self._configs[name]
        if "file" in config:
            return self._host(config["file"])
        assert set(config) == {"content"}
        file = self._folder / name
        file.write_text(config["content"])
        file.chmod(0o444)
        return file

    def _host(self, path: str) -> Path:
        return (self._root / path).resolve(strict=True)

    def _public(self, service: dict[str, Any]) -> str:
        return str(service["image"]).rpartition(":")[0]

    def _image(self, service: dict[str, Any]) -> str:
        if "build" in service:
            return self._built
        return self._images[self._public(service)]

    def _service_of(self, container: str) -> str:
        return next(name for name, running in self._running.items() if container in running)

    # --- podman ---

    def podman(
        self,
        *words: str,
        environment: Mapping[str, str] | None = None,
        given: str = "",
        timeout: float = 60,
        check: bool = True,
        codes: Iterable[int] = (0,),
        both: bool = False,
    ) -> str:
        """Run podman; returns what it printed.

        Raises:
            AssertionError: it ended with another exit code than those that are accepted.
        """
        done = self._call(*words, environment=environment, given=given, timeout=timeout)
        said = done.stdout + done.stderr
        if len(said) > 6000:
            said = f"{said[:3000]} … {said[-3000:]}"
        assert not check or done.returncode in codes, (
            f"podman {words[0]} ended with {done.returncode}: {said}"
        )
        return done.stdout + done.stderr if both else done.stdout

    def _call(
        self,
        *words: str,
        environment: Mapping[str, str] | None = None,
        given: str = "",
        timeout: float,
    ) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [self._podman, *words],
            env={**os.environ, **(environment or {})},
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
