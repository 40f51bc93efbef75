"""`tollgate dev` as a user starts it: a process, the variables it writes, and a shell that has them.

Every process here is started by a test and ended by it, by its own id.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx

START_SECONDS = 90
STOP_SECONDS = 40
T = TypeVar("T")


def binary() -> str:
    """The program under test; run.sh names it."""
    path = os.environ.get("TOLLGATE")
    assert path and shutil.which(path), "run the tests through run.sh, which builds the binary and names it in $TOLLGATE"
    return path


def free_ports(count: int = 1) -> int:
    """The first of so many neighbouring ports that nobody listens on, below those that the system gives to outgoing calls."""

    def is_free(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    while True:
        first = random.randrange(10_000, 20_000)
        if all(is_free(first + offset) for offset in range(count)):
            return first


def eventually(what: str, attempt: Callable[[], T], seconds: float = 10.0) -> T:
    """What `attempt` returns once it is true. For events that nothing announces; fails with the last thing seen."""
    deadline = time.monotonic() + seconds
    while True:
        seen = attempt()
        if seen:
            return seen
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds} s; last seen: {seen!r}"
        time.sleep(0.05)


class Process:
    """A child with its output in a file."""

    def __init__(self, arguments: list[str], log: Path, env: dict[str, str] | None = None) -> None:
        self.log = log
        with log.open("wb") as out:
            self.child = subprocess.Popen(
                [binary(), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def running(self) -> bool:
        return self.child.poll() is None

    def interrupt(self) -> None:
        """Asks it to stop, as Ctrl-C does."""
        self.child.send_signal(signal.SIGINT)

    def wait(self, seconds: float = STOP_SECONDS) -> int:
        """Its exit code; a process that does not end is killed and fails the test."""
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {seconds} s after SIGINT; its output ends:\n{self.output()[-4000:]}") from None

    def kill(self) -> None:
        if self.running():
            os.killpg(self.child.pid, signal.SIGKILL)
            self.child.wait()


@dataclass
class Dev:
    """A running `tollgate dev`."""

    process: Process
    directory: Path
    env: dict[str, str]
    home: Path
    secrets: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The gateway."""
        return self.env["MAAS_URL"]

    @property
    def model(self) -> str:
        return self.env["MODEL_NAME"]

    def node_pids(self) -> list[int]:
        return [int(pid) for pid in self.env.get("NODE_PIDS", "").replace(",", " ").split()]

    def bash(self, script: str, seconds: float = 60.0) -> str:
        """What `script` prints in a shell that has read dev.env, and what earlier scripts told it to `remember`."""
        preamble = f"set -euo pipefail\nremember() {{ declare -p \"$@\" >>'{self.home}/remembered'; }}\n"
        preamble += f"touch '{self.home}/remembered'; . '{self.directory}/dev.env'; . '{self.home}/remembered'\ncd '{self.home}'\n"
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "LANG": "C.UTF-8"}
        done = subprocess.run(["bash", "-c", preamble + script], capture_output=True, text=True, timeout=seconds, env=env)
        assert done.returncode == 0, f"exit {done.returncode} of:\n{script}\nstdout: {done.stdout}\nstderr: {done.stderr}"
        return done.stdout

    def kubectl(self, *arguments: str, stdin: str | None = None, fails: bool = False, seconds: float = 60.0) -> str:
        """What kubectl prints; with `fails` it must refuse, and what it says on stderr is returned."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.home), "KUBECONFIG": self.env["KUBECONFIG"]}
        command = ["kubectl", *arguments]
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=seconds, env=env)
        assert (done.returncode != 0) == fails, f"exit {done.returncode} of {command}\n{stdin or ''}\n{done.stdout}{done.stderr}"
        return done.stderr if fails else done.stdout

    def metrics(self) -> dict[str, float]:
        """The counters, by name and labels as they are written."""
        lines = self.kubectl("get", "--raw", "/metrics").splitlines()
        samples = (line.rsplit(" ", 1) for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def counted(self, name: str, **labels: str) -> float:
        """The sum of one counter over the series that have these labels."""
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        series = self.metrics().items()
        return sum(value for key, value in series if key.split("{")[0] == name and all(text in key for text in wanted))

    def check_end(self) -> None:
        """After Ctrl-C it drains and exits 0, leaves no node behind, and its logs hold neither a secret nor a cry for help."""
        code = self.process.wait()
        page = self.process.output()
        assert code == 0, f"exit {code}; its output ends:\n{page[-4000:]}"
        for pid in self.node_pids():
            assert not is_running(pid), f"node {pid} outlived `tollgate dev`"
        logs = "".join(file.read_text(errors="replace") for file in [*self.directory.glob("*/log"), *self.directory.glob("*.log")])
        assert logs, "no node has written a log"
        assert "panicked" not in page + logs and " ERROR " not in page + logs, trouble(page + logs)
        for secret in [*self.secrets, self.env["OCP_TOKEN"], self.env["USER_TOKEN"], self.env["API_KEY"]]:
            assert secret not in logs, "a key or a token is in a log"


def is_running(pid: int) -> bool:
    """Whether the process has not ended; one that only waits for somebody to ask how it ended has no command line any more."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes() != b""
    except FileNotFoundError:
        return False


def trouble(text: str) -> str:
    """The lines that a person must look at."""
    return "\n".join(line for line in text.splitlines() if "panicked" in line or " ERROR " in line)


def wait_until_ready(process: Process, directory: Path, port: int) -> dict[str, str]:
    """The variables of dev.env, once the gateway says that it is ready. A former run's file names another port."""

    def variables() -> dict[str, str]:
        assert process.running(), f"`tollgate dev` ended with {process.child.returncode}:\n{process.output()[-4000:]}"
        file = directory / "dev.env"
        if not file.exists():
            return {}
        shell = subprocess.run(["env", "-i", "bash", "-c", f". '{file}' && env -0"], capture_output=True, text=True, check=True)
        return dict(line.split("=", 1) for line in shell.stdout.split("\0") if "=" in line)

    def ready() -> dict[str, str]:
        env = variables()
        # The page is printed last, when the model answers.
        return env if str(port) in env.get("MAAS_URL", "") and "Tollgate is ready" in process.output() else {}

    return eventually("readiness of `tollgate dev`", ready, START_SECONDS)


@contextmanager
def running_dev(directory: Path, *arguments: str, nodes: int = 1, env: dict[str, str] | None = None) -> Iterator[Dev]:
    """`tollgate dev` on free ports with its data below `directory`; stopped, and its end checked, when the block is left."""
    data, home = directory / "data", directory / "home"
    home.mkdir(parents=True, exist_ok=True)
    gateway, admin = free_ports(nodes), free_ports(nodes)
    ports = ["--gateway-port", str(gateway), "--admin-port", str(admin)]
    process = Process(["dev", "--data-dir", str(data), "--nodes", str(nodes), *ports, *arguments], directory / "dev.log", os.environ | (env or {}))
    try:
        dev = Dev(process, data, wait_until_ready(process, data, gateway), home)
        yield dev
        if process.running():
            process.interrupt()
        dev.check_end()
    finally:
        process.kill()


class Replica:
    """`tollgate sim-vllm`: a model server of our own, which can be told to fail."""

    def __init__(self, directory: Path, *arguments: str) -> None:
        self.port = free_ports()
        self.url = f"http://127.0.0.1:{self.port}"
        directory.mkdir(parents=True, exist_ok=True)
        self.process = Process(["sim-vllm", "--port", str(self.port), *arguments], directory / f"replica-{self.port}.log")
        eventually("health of the replica", self.healthy, 30)

    def healthy(self) -> bool:
        assert self.process.running(), self.process.output()
        try:
            return httpx.get(f"{self.url}/health", timeout=2).status_code == 200
        except httpx.TransportError:
            return False

    @contextmanager
    def fault(self, fault: str) -> Iterator[None]:
        """Every call fails so until the block is left."""
        httpx.post(f"{self.url}/sim/fault", json={"fault": fault}).raise_for_status()
        try:
            yield
        finally:
            httpx.post(f"{self.url}/sim/fault", json={"fault": None}).raise_for_status()

    def stats(self) -> dict[str, Any]:
        """What it runs, and what became of each request."""
        return json.loads(httpx.get(f"{self.url}/sim/stats").raise_for_status().text)

    def stop(self) -> None:
        self.process.kill()
