#!/usr/bin/env python3
"""What Tollgate costs next to nginx: the same load through both in turns, each on a processor of its own.

    simulation/side-by-side/compare.py                          every scenario, three rounds
    simulation/side-by-side/compare.py --scale 0.3 --rounds 1   a quick look whether it works
    simulation/side-by-side/compare.py --only json,stream       some scenarios

Builds what it needs with cargo, then prints a Markdown table and saves every slice as JSON below target/side-by-side.
README.md says what is measured and how to read it.
"""

import argparse
import concurrent.futures
import contextlib
import dataclasses
import http.client
import json
import os
import pathlib
import resource
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import report

ROOT = pathlib.Path(__file__).resolve().parents[2]
OUTPUT = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "side-by-side"
REPLICA_PORTS = (9001, 9002, 9003, 9004)
NGINX_PORT = 8101
TOLLGATE_PORTS = {"gateway": 8201, "admin": 8202, "peers": 8203}
MODEL = "mock"
TENANT_NAMESPACE = "models-as-a-service"
MODEL_NAMESPACE = "llm"
USER = f"system:serviceaccount:{TENANT_NAMESPACE}:bench"
FEW_KEYS, MANY_KEYS = 10, 10_000


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A load, and how the replicas answer it. Times in seconds, before --scale."""

    title: str
    load: tuple
    replicas: dict = dataclasses.field(default_factory=dict)
    keys: int = FEW_KEYS
    seconds: float = 8
    nginx_seconds: float = 4
    warm_up: float = 1.5


SCENARIOS = {
    "json": Scenario("JSON, 1 KB in, 2 KB out, 64 connections", ("--connections=64",)),
    "stream": Scenario("stream of 50 events, 64 connections", ("--connections=64", "--stream=50")),
    "open": Scenario("JSON, 200 calls a second", ("--rate=200",), nginx_seconds=8),
    "slow": Scenario(
        "1,000 streams of 20 events, 100 ms apart",
        ("--connections=1000", "--stream=20", "--ramp-ms=2000"),
        replicas={"chunks": 20, "gap_ms": 100}, seconds=10, nginx_seconds=10, warm_up=0,
    ),
    # Last, because keys are only ever added.
    "keys": Scenario("JSON as above, 10,000 keys at random", ("--connections=64",), keys=MANY_KEYS),
}


class Trouble(Exception):
    """Something that the person at the terminal can mend."""


def main():
    options = read_options()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # A supervisor's stop must end what was started, too.
    try:
        result = compare(options)
    except Trouble as trouble:
        sys.exit(f"compare.py: {trouble}")
    print(report.table(result, SCENARIOS))
    if problems := [problem for measured in result["slices"] for problem in report.complaints(measured)]:
        sys.exit("\n".join(["", *problems]))


def read_options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", metavar="NAMES", default=",".join(SCENARIOS), help="scenarios (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="how often each (default: %(default)s)")
    parser.add_argument("--scale", type=float, default=1.0, help="stretch every slice by this (default: %(default)s)")
    parser.add_argument("--tollgate", metavar="FILE", type=pathlib.Path, help="measure this binary, not a new build")
    parser.add_argument("--output", metavar="FILE", type=pathlib.Path, help="where the slices go, as JSON")
    options = parser.parse_args()
    options.scenarios = [name for name in SCENARIOS if name in options.only.split(",")]
    if unknown := set(options.only.split(",")) - set(SCENARIOS):
        parser.error(f"no scenario {', '.join(sorted(unknown))}: there are {', '.join(SCENARIOS)}")
    if options.rounds < 1 or options.scale <= 0:
        parser.error("--rounds and --scale must be above zero")
    return options


def compare(options):
    """Starts everything, runs the rounds, stops everything. Returns what was measured."""
    tools = find_tools()
    binaries = build(options.tollgate)
    gateway_cpu, ends_cpu = two_processors()
    allow_many_files()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    output = options.output or OUTPUT / time.strftime("%Y%m%d-%H%M%S.json")
    result = {"rounds": options.rounds, "scale": options.scale, "slices": []}
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(run_directory()))
        mock = stack.enter_context(Process("mock", [binaries["ends"], "mock"], directory, ends_cpu))
        wait_until(lambda: call(REPLICA_PORTS[0], "/health"), "the replicas", mock)
        nginx = stack.enter_context(Nginx(tools["nginx"], directory, gateway_cpu))
        tollgate = stack.enter_context(Tollgate(binaries["tollgate"], tools["openssl"], directory, gateway_cpu))
        result["idle"] = {gateway.name: idle(gateway) for gateway in (nginx, tollgate)}
        bench = Bench([binaries["ends"], "load"], mock, directory / "keys", ends_cpu)
        for name in options.scenarios:
            scenario = SCENARIOS[name]
            tollgate.have_keys(scenario.keys)
            for round_number in range(1, options.rounds + 1):
                for measured in bench.round(nginx, tollgate, scenario, round_number, options.scale):
                    measured.update(scenario=name, round=round_number)
                    result["slices"].append(measured)
                    print(report.progress(measured), file=sys.stderr, flush=True)
                output.write_text(json.dumps(result, indent=1))
    print(f"every slice: {output}\n", file=sys.stderr)
    return result


# --- What is needed ---------------------------------------------------------------------------------------------------


def find_tools():
    """Nothing is installed from here."""
    packages = {"nginx": "nginx-light", "openssl": "openssl", "taskset": "util-linux"}
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    tools = {tool: shutil.which(tool, path=path) for tool in packages}
    if missing := [packages[tool] for tool, found in tools.items() if not found]:
        raise Trouble(f"something is missing; on Debian: apt-get install {' '.join(missing)}")
    return tools


def build(tollgate):
    """Builds the release binaries. `tollgate` is used as it is, if given."""
    packages = ["-p", "side-by-side"] + ([] if tollgate else ["-p", "tollgate"])
    cargo = os.environ.get("CARGO", "cargo")
    if subprocess.run([cargo, "build", "--release", "--quiet", *packages], cwd=ROOT).returncode:
        raise Trouble("the build failed")
    release = OUTPUT.parent / "release"
    return {"tollgate": (tollgate or release / "tollgate").resolve(), "ends": release / "side-by-side"}


def two_processors():
    """One for the gateway under test, one for the replicas and the client."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Trouble("needs two processors: one for the gateway, one for the replicas and the client")
    return allowed[:2]


def allow_many_files():
    """A thousand streams are two thousand connections in a gateway."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (20_000 if hard == resource.RLIM_INFINITY else min(20_000, hard), hard))


@contextlib.contextmanager
def run_directory():
    """A directory for configurations, keys and logs. It stays when something went wrong."""
    directory = tempfile.mkdtemp(prefix="run-", dir=OUTPUT)
    try:
        yield directory
    except Exception:
        print(f"logs: {directory}", file=sys.stderr)
        raise
    shutil.rmtree(directory)


# --- Processes and what they use --------------------------------------------------------------------------------------


class Process:
    """A process and its children, pinned to one processor, stopped on leaving the `with`."""

    def __init__(self, name, command, directory, cpu):
        self.name = name
        self.log = directory / f"{name}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                ["taskset", "-c", str(cpu), *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=directory)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def check(self):
        if self.process.poll() is not None:
            raise Trouble(f"{self.name} ended with {self.process.returncode}: {self.log.read_text()[-1000:]}")

    def tree(self):
        """The ids of the process and everything below it."""
        children = {}
        for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                # The name in parentheses may hold anything; the parent is the second field after it.
                parent = int(stat.read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(stat.parent.name))
        ids = [self.process.pid]
        for pid in ids:
            ids += children.get(pid, [])
        return ids

    def cpu_by_thread(self):
        """Nanoseconds each thread has run, by the scheduler's own count."""
        used = {}
        for pid in self.tree():
            for schedstat in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
                with contextlib.suppress(OSError):
                    used[int(schedstat.parent.name)] = int(schedstat.read_text().split()[0])
        return used

    def rss(self):
        """Resident bytes."""
        pages = 0
        for pid in self.tree():
            with contextlib.suppress(OSError):
                pages += int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()


def cpu_seconds(before, after):
    """Between two `cpu_by_thread`. What a thread used that ended in between is lost; gateways keep theirs."""
    return sum(used - before.get(thread, 0) for thread, used in after.items()) / 1e9


def machine_cpu_seconds():
    """What everything on the machine has used."""
    fields = [int(field) for field in pathlib.Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    idle_and_waiting = fields[3] + fields[4]
    return (sum(fields) - idle_and_waiting) / os.sysconf("SC_CLK_TCK")


def idle(gateway):
    """What it uses when nobody calls."""
    time.sleep(1)
    before = gateway.cpu_by_thread()
    time.sleep(2)
    return {"cpu": cpu_seconds(before, gateway.cpu_by_thread()) / 2, "rss": gateway.rss()}


# --- The gateways -----------------------------------------------------------------------------------------------------


class Nginx(Process):
    """A bare proxy: it checks, counts and limits nothing. It is the yardstick, not a rival."""

    port = NGINX_PORT

    def __init__(self, binary, directory, cpu):
        (directory / "nginx.conf").write_text(self.config(directory))
        command = [binary, "-p", f"{directory}/", "-e", "nginx.err", "-c", "nginx.conf"]
        super().__init__("nginx", command, directory, cpu)

    def __enter__(self):
        wait_until(lambda: chat(self.port), "nginx", self)
        return self

    @staticmethod
    def config(directory):
        servers = " ".join(f"server 127.0.0.1:{port};" for port in REPLICA_PORTS)
        keep = "keepalive_requests 100000000; keepalive_timeout 300s;"
        kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        temporary = " ".join(f"{kind}_temp_path {directory}/{kind};" for kind in kinds)
        return f"""
            daemon off; master_process off; worker_processes 1; worker_rlimit_nofile 20000;
            pid {directory}/nginx.pid; error_log {directory}/nginx.err warn;
            events {{ worker_connections 16384; multi_accept on; }}
            http {{
                access_log off; tcp_nodelay on; client_body_buffer_size 64k; {keep} {temporary}
                upstream replicas {{ least_conn; {servers} keepalive 2048; {keep} }}
                proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off; proxy_read_timeout 300s;
                server {{ listen 127.0.0.1:{NGINX_PORT} backlog=4096; location / {{ proxy_pass http://replicas; }} }}
            }}
        """


class Tollgate(Process):
    """One node as in production, set up over its admin API: a model with four replicas, a subscription, a policy."""

    port = TOLLGATE_PORTS["gateway"]

    def __init__(self, binary, openssl, directory, cpu):
        self.directory = directory
        self.keys = []
        self.user_token = None
        make_certificate(openssl, directory)
        (directory / "tollgate.toml").write_text(
            '[node]\ndata_dir = "data"\n'
            f'[upstream]\nallow_loopback = true\n[peers]\nlisten = "127.0.0.1:{TOLLGATE_PORTS["peers"]}"\n'
            f'[gateway]\nlisten = "127.0.0.1:{TOLLGATE_PORTS["gateway"]}"\n'
            f'[admin]\nlisten = "127.0.0.1:{TOLLGATE_PORTS["admin"]}"\n'
            'certificate = "admin.crt"\nkey = "admin.key"\n'
        )
        super().__init__("tollgate", [binary, "serve", "--config", "tollgate.toml"], directory, cpu)

    def __enter__(self):
        try:
            token_file = self.directory / "data" / "admin.token"
            wait_until(token_file.exists, "Tollgate", self)
            self.admin = Admin(self.directory / "admin.crt")
            token = token_file.read_text().strip()
            wait_until(lambda: self.admin.is_ready_for(token), "Tollgate", self)
            self.set_up(token)
            self.have_keys(FEW_KEYS)
            wait_until(lambda: chat(self.port, self.keys[0]), "Tollgate's model", self)
        except BaseException:
            self.__exit__()
            raise
        return self

    def set_up(self, token):
        """What an administrator applies with kubectl."""
        model = {"name": MODEL, "namespace": MODEL_NAMESPACE}
        for namespace in (TENANT_NAMESPACE, MODEL_NAMESPACE):
            self.admin.create(token, "/api/v1/namespaces", "v1", "Namespace", {"name": namespace})
        accounts = f"/api/v1/namespaces/{TENANT_NAMESPACE}/serviceaccounts"
        bench = {"name": "bench", "namespace": TENANT_NAMESPACE}
        self.admin.create(token, accounts, "v1", "ServiceAccount", bench)
        replicas = ",".join(f"http://127.0.0.1:{port}" for port in REPLICA_PORTS)
        self.admin.create(
            token, f"/apis/serving.kserve.io/v1alpha1/namespaces/{MODEL_NAMESPACE}/llminferenceservices",
            "serving.kserve.io/v1alpha1", "LLMInferenceService",
            {**model, "annotations": {"tollgate.dev/replicas": replicas}},
            {"model": {"uri": f"hf://{MODEL}", "name": MODEL}, "replicas": len(REPLICA_PORTS)},
        )
        maas = "maas.opendatahub.io/v1alpha1"
        self.admin.create(
            token, f"/apis/{maas}/namespaces/{MODEL_NAMESPACE}/maasmodelrefs", maas, "MaaSModelRef",
            model, {"modelRef": {"kind": "LLMInferenceService", "name": MODEL}},
        )
        limits = [{"limit": 1_000_000_000, "window": "60s"}]
        self.admin.create(
            token, f"/apis/{maas}/namespaces/{TENANT_NAMESPACE}/maassubscriptions", maas, "MaaSSubscription",
            bench, {"owner": {"users": [USER]}, "modelRefs": [{**model, "tokenRateLimits": limits}]},
        )
        self.admin.create(
            token, f"/apis/{maas}/namespaces/{TENANT_NAMESPACE}/maasauthpolicies", maas, "MaaSAuthPolicy",
            bench, {"subjects": {"users": [USER]}, "modelRefs": [model]},
        )
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"}
        request["spec"] = {"expirationSeconds": 86_400}
        self.user_token = self.admin.call("POST", f"{accounts}/bench/token", token, request)["status"]["token"]
        # One user has all the keys of the load.
        tenant = f"/apis/{maas}/namespaces/{TENANT_NAMESPACE}/tenants/default-tenant"
        bounds = {"maxPerUser": 100_000, "maxCreationsPerMinute": 1_000_000}
        patch = {"spec": {"apiKeys": bounds}}
        self.admin.call("PATCH", tenant, token, patch, content_type="application/merge-patch+json")

    def have_keys(self, count):
        """Creates keys until there are `count`, and writes them to the file that the client reads."""
        def create(number):
            body = {"name": f"bench-{number}", "subscription": "bench"}
            return self.admin.call("POST", "/maas-api/v1/api-keys", self.user_token, body)["key"]

        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            self.keys += pool.map(create, range(len(self.keys), count))
        file = self.directory / "keys"
        file.touch(mode=0o600)
        file.write_text("\n".join(self.keys))


class Admin:
    """A client of Tollgate's admin API: a connection for every thread that calls."""

    def __init__(self, certificate):
        self.tls = ssl.create_default_context(cafile=str(certificate))
        self.local = threading.local()

    def call(self, method, path, token, body=None, content_type="application/json"):
        """The answer as JSON, or as text if it is none. Errors: Trouble with the answer, if it is not a success."""
        headers = {"authorization": f"Bearer {token}", "content-type": content_type}
        connection = getattr(self.local, "connection", None)
        if connection is None:
            connection = http.client.HTTPSConnection("127.0.0.1", TOLLGATE_PORTS["admin"], timeout=30, context=self.tls)
            self.local.connection = connection
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            response = connection.getresponse()
            text = response.read().decode()
        except (OSError, http.client.HTTPException):
            # Half an exchange is of no use to the next call.
            connection.close()
            self.local.connection = None
            raise
        if response.status >= 300:
            raise Trouble(f"Tollgate answers {method} {path} with {response.status}: {text[:300]}")
        return json.loads(text) if text.startswith(("{", "[")) else text

    def is_ready_for(self, token):
        """Whether the node serves, and the first administrator's token has reached the cluster's state."""
        return self.call("GET", "/readyz", token) and self.call("GET", "/api/v1/namespaces", token)

    def create(self, token, path, version, kind, metadata, spec=None):
        body = {"apiVersion": version, "kind": kind, "metadata": metadata} | ({"spec": spec} if spec else {})
        try:
            self.call("POST", path, token, body)
        except Trouble as trouble:
            # A namespace that is always there is fine.
            if kind != "Namespace" or " 409" not in str(trouble):
                raise


def make_certificate(openssl, directory):
    command = [openssl, "req", "-x509", "-nodes", "-days", "2", "-subj", "/CN=tollgate"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "admin.key", "-out", "admin.crt"]
    command += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"]
    made = subprocess.run(command, cwd=directory, stderr=subprocess.PIPE, text=True)
    if made.returncode:
        raise Trouble(f"openssl made no certificate: {made.stderr}")


def call(port, path, body=None, headers=None):
    """The answer's bytes, at least one; `b" "` stands for an empty one."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers or {})
    with urllib.request.urlopen(request, timeout=10) as response:
        return response.read() or b" "


def chat(port, key=None):
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hello"}]}
    return call(port, "/v1/chat/completions", body, headers)


def wait_until(is_ready, what, process, seconds=30):
    deadline = time.monotonic() + seconds
    while True:
        process.check()
        try:
            if is_ready():
                return
            last = "nothing yet"
        except (OSError, http.client.HTTPException, Trouble) as error:
            last = error
        if time.monotonic() > deadline:
            raise Trouble(f"{what} is not ready after {seconds} s: {last}; its log is {process.log}")
        time.sleep(0.05)


# --- Measuring --------------------------------------------------------------------------------------------------------


@dataclasses.dataclass
class Bench:
    """The client, and the replicas behind every gateway."""

    load: list
    mock: Process
    keys: pathlib.Path
    cpu: int

    def round(self, nginx, tollgate, scenario, number, scale):
        """A slice of nginx and right after it one of Tollgate: what is compared shares the machine's mood."""
        nginx_slice = self.slice(nginx, scenario, scenario.nginx_seconds * scale, number)
        if scenario.warm_up:
            self.slice(tollgate, scenario, scenario.warm_up * min(1, scale), 1000 + number)
        tollgate_slice = self.slice(tollgate, scenario, scenario.seconds * scale, number)
        self.settle(tollgate)
        per_request = nginx_slice["cpu_us_per_request"]
        tollgate_slice["times_nginx"] = tollgate_slice["cpu_us_per_request"] / per_request if per_request else None
        return nginx_slice, tollgate_slice

    def slice(self, gateway, scenario, seconds, seed):
        call(REPLICA_PORTS[0], "/control", scenario.replicas)
        command = ["taskset", "-c", str(self.cpu), *self.load, *scenario.load]
        command += [f"--port={gateway.port}", f"--seconds={seconds}", f"--seed={seed}", f"--keys={self.keys}"]
        with highest_rss(gateway) as peak:
            began, machine = time.monotonic(), machine_cpu_seconds()
            before, mock_before = gateway.cpu_by_thread(), self.mock.cpu_by_thread()
            run = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=seconds + 120)
            used = cpu_seconds(before, gateway.cpu_by_thread())
            replicas_used = cpu_seconds(mock_before, self.mock.cpu_by_thread())
            machine, wall = machine_cpu_seconds() - machine, time.monotonic() - began
        gateway.check()
        if run.returncode:
            raise Trouble(f"the client ended with {run.returncode}")
        measured = json.loads(run.stdout)
        replicas = json.loads(call(REPLICA_PORTS[0], "/stats"))
        measured.update(
            gateway=gateway.name,
            cpu_seconds=used,
            cpu_us_per_request=used * 1e6 / max(1, measured["good"] + measured["failed"]),
            peak_rss=peak[0],
            mock_cpu_seconds=replicas_used,
            other_processors=max(0.0, machine - used - replicas_used - measured["driver_cpu_seconds"]) / wall,
            replica_calls=[replica["calls"] for replica in replicas],
        )
        return measured

    @staticmethod
    def settle(gateway, seconds=10):
        """Waits until the gateway has finished what its slice left behind, so that nginx does not pay for it."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            before = gateway.cpu_by_thread()
            time.sleep(0.3)
            if cpu_seconds(before, gateway.cpu_by_thread()) < 0.03:
                return


@contextlib.contextmanager
def highest_rss(process):
    """A list of one number: the most resident bytes seen while inside the `with`."""
    peak, stopped = [process.rss()], threading.Event()

    def watch():
        while not stopped.wait(0.5):
            peak[0] = max(peak[0], process.rss())

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield peak
    finally:
        stopped.set()
        watcher.join()


if __name__ == "__main__":
    main()
