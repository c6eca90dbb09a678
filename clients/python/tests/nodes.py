"""A cluster of real nodes for the tests, as `keyviz serve` runs them."""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
BINARY = os.environ.get("KEYVIZ", str(HERE.parents[2] / "target" / "debug" / "keyviz"))

try:
    import grpc
    import grpc_tools  # noqa: F401
except ImportError:
    grpc = None


def missing():
    """Why the tests cannot run here; empty: they can."""
    if grpc is None:
        return "grpcio and grpcio-tools are not installed"
    return "" if os.path.exists(BINARY) else f"there is no {BINARY}"


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Nodes:
    """Three nodes on loopback, in a folder that goes with them."""

    def __init__(self, splits=(), groups=3, count=3, step="1s"):
        self.folder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
        self.members = ",".join(f"{id}={at}" for id, at in enumerate(self.addresses, 1))
        self.processes = []
        self.step = step
        sys.path[:0] = [self.folder.name, str(HERE.parent)]
        import make_stubs

        assert make_stubs.make(self.folder.name) == 0, "the stubs are made"
        start = ["--bootstrap", self.members, "--groups", str(groups)]
        # The system bounds the length of one argument.
        for at in range(0, len(splits), 5000):
            start += ["--split-at", ",".join(splits[at : at + 5000])]
        self.start("data", start)

    def data(self, name, id):
        return f"{self.folder.name}/{name}-{id}"

    def start(self, name, flags=()):
        for id, address in enumerate(self.addresses, 1):
            command = [BINARY, "serve", "--id", str(id), "--listen", address]
            command += ["--data", self.data(name, id), "--keyviz-step", self.step, *flags]
            with open(f"{self.folder.name}/log-{name}-{id}", "w") as log:
                self.processes.append(subprocess.Popen(command, stderr=log, stdout=log))

    def client(self, timeout=60):
        """A client, once the cluster serves writes."""
        from keyviz_client import Client

        client = Client(self.addresses, timeout=timeout)
        deadline = time.time() + 180
        while True:
            try:
                client.put(b"first", b"1")
                return client
            except Exception:
                if time.time() > deadline:
                    raise
                time.sleep(0.3)

    def run(self, *arguments):
        subprocess.run([BINARY, *arguments], check=True, stdout=subprocess.DEVNULL)

    def restore(self):
        """Backs the cluster up, stops it, and starts what was restored at the same addresses."""
        file = f"{self.folder.name}/backup"
        self.run("backup", "--out", file, "--node", ",".join(self.addresses))
        self.kill()
        for id in range(1, len(self.addresses) + 1):
            self.run(
                *["restore", "--from", file, "--id", str(id), "--data", self.data("restored", id)],
                *["--bootstrap", self.members],
            )
        self.start("restored")

    def kill(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.processes = []

    def stop(self):
        self.kill()
        self.folder.cleanup()
