"""Watch a program's child processes: their requests are reported, not recorded."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
from pathlib import Path

from .connections import CHILD_MODULE, VARIABLE, ChildReport, Watch, describe

HOOK = Path(__file__).with_name("child_hook")


class Children:
    """Watches child processes: forked ones by what they inherit, other Python processes by a module
    that they load when they start.

    :param watch: knows the hosts of models.
    :param refuses: whether their requests to models are refused.
    """

    def __init__(self, watch: Watch, *, refuses: bool) -> None:
        self.refuses = refuses
        self._watch = watch
        self._process = os.getpid()
        self._token = secrets.token_hex(16)
        # No thread reads it before the end, because Python warns about forks beside threads.
        self._reports = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._reports.bind(("127.0.0.1", 0))
        self._reports.setblocking(False)
        self._report = ChildReport(self._description())
        child_module = sys.modules.get(CHILD_MODULE)
        if child_module is not None:  # this process is itself a child of another run
            child_module.stop_watching_child()
        self.publish()

    def publish(self) -> None:
        """Write what child processes must know into the environment that they inherit."""
        os.environ[VARIABLE] = self._description()
        python_path = os.environ.get("PYTHONPATH")
        if str(HOOK) not in (python_path or "").split(os.pathsep):
            os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(HOOK), python_path]))

    def is_forked_child(self) -> bool:
        """Return whether this process is a forked child."""
        return os.getpid() != self._process

    def tell(self, host: str, module: str) -> None:
        """Report a request to a model, in a forked child.

        :raises ConnectionRefusedError: if nothing may be sent.
        """
        self._report.tell(host, module)

    def note(self, host: str) -> None:
        """Report a request that is refused already, in a forked child."""
        self._report.note(host)

    def count_reporting(self) -> int:
        """Return how many child processes reported requests to a model."""
        processes = set()
        with contextlib.suppress(OSError):  # when no report is left
            while True:
                token, _, process = (
                    self._reports.recv(100).decode("ascii", "replace").partition(" ")
                )
                if token == self._token:
                    processes.add(process)
        return len(processes)

    def _description(self) -> str:
        port = self._reports.getsockname()[1]
        return describe(self._watch, port, self._token, refuses=self.refuses)
