"""Find what a program sends to models by clients that are not recorded.

An audit hook reports connections and the requests of ``http.client``. Once they are imported, the
pools of httpcore, the connectors of aiohttp and the channels of grpc are watched, too.

Only the standard library is imported here: child processes load this file without llmcall.
"""

from __future__ import annotations

import contextlib
import copyreg
import errno
import functools
import importlib.abc
import ipaddress
import json
import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import FrameType, ModuleType
from typing import Any

VARIABLE = "_LLMCALL_RUN"  # tells Python child processes of a run what to watch
CHILD_MODULE = "llmcall_child_connections"  # this file, as a child process loads it
# The hosts of well-known APIs; each may have further labels before it.
KNOWN_HOSTS = (
    "aiplatform.googleapis.com",
    "api-inference.huggingface.co",
    "api.ai21.com",
    "api.anthropic.com",
    "api.cerebras.ai",
    "api.cohere.ai",
    "api.cohere.com",
    "api.deepseek.com",
    "api.fireworks.ai",
    "api.groq.com",
    "api.mistral.ai",
    "api.moonshot.ai",
    "api.moonshot.cn",
    "api.openai.com",
    "api.perplexity.ai",
    "api.together.ai",
    "api.together.xyz",
    "api.voyageai.com",
    "api.x.ai",
    "cognitiveservices.azure.com",
    "dashscope.aliyuncs.com",
    "dashscope-intl.aliyuncs.com",
    "generativelanguage.googleapis.com",
    "integrate.api.nvidia.com",
    "models.inference.ai.azure.com",
    "openai.azure.com",
    "openrouter.ai",
    "router.huggingface.co",
    "services.ai.azure.com",
)
AMAZON = r"bedrock-runtime\.[\w-]+\.amazonaws\.com"
MODEL_HOSTS = re.compile(rf"(^|[.-])({'|'.join([*map(re.escape, KNOWN_HOSTS), AMAZON])})$")
# The ends of the paths of chat completions, embeddings and their like, on any host.
MODEL_PATHS = ("/chat/completions", "/completions", "/embeddings", "/responses", "/v1/messages")
GOOGLE_PATHS = (":generateContent", ":streamGenerateContent")
REQUEST_LINE = re.compile(rb"([A-Z]+) (\S+) HTTP/")
# Libraries between a program and a connection.
NETWORK_MODULES = frozenset(
    {
        "aiohappyeyeballs",
        "aiohttp",
        "anyio",
        "asyncio",
        "gevent",
        "grpc",
        "h11",
        "h2",
        "httpcore",
        "httpcore2",
        "httplib2",
        "httpx",
        "httpx2",
        "llmcall",
        CHILD_MODULE,
        "requests",
        "requests_toolbelt",
        "tornado",
        "trio",
        "urllib3",
        "uvloop",
        "websocket",
        "websockets",
    }
)
HTTPS = 443
LOOPBACK = "localhost"
OLLAMA = (LOOPBACK, 11434)  # whose own API is not recorded
# Modules of the standard library whose child processes describe this machine (uname, ldconfig).
DESCRIBING_MODULES = frozenset({"ctypes.util", "platform", "uuid"})


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls a function with a module as soon as the module is imported."""

    def __init__(self, name: str, function: Callable[[ModuleType], None]) -> None:
        self._name = name
        self._function = function

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the module is, with a loader that calls the function."""
        if fullname != self._name:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or not isinstance(spec.loader, SourceFileLoader):
            return None
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self._function(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def after_import(name: str, function: Callable[[ModuleType], None]) -> None:
    """Call a function with a module: now if it is imported already, otherwise when it is."""
    if name in sys.modules:
        function(sys.modules[name])
    else:
        sys.meta_path.insert(0, _AfterImport(name, function))


class Watch:
    """Finds what this process sends to models by clients that are not recorded.

    A host counts as a model's if it belongs to a well-known API, if a recorded request went to it, if
    the settings name it as ``base_url``, if it is Ollama's on this machine, or if it gets a request
    with the path of a model's API. All other connections (databases, queues, downloads) pass.

    :param tell: called for each such request, with the host and the module that makes the request;
        an exception that it raises prevents the connection.
    :param addresses: hosts and ports of models that are known from the beginning.
    """

    def __init__(
        self, tell: Callable[[str, str], None], addresses: Iterable[tuple[str, int]] = ()
    ) -> None:
        self._tell = tell
        self._addresses: set[tuple[str, int]] = {OLLAMA}
        self._names: dict[str, str] = {}  # hosts by the addresses that were looked up for them
        self._unwatched: dict[str, None] = {}
        self._is_on = False
        for host, port in addresses:
            self.add(host, port)

    def add(self, host: str, port: int) -> bool:
        """Add the address of a model; return whether it is new."""
        address = (_normalized_host(host), port)
        is_new = address not in self._addresses
        self._addresses.add(address)
        return is_new

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Return the known hosts and ports of models."""
        return sorted(self._addresses)

    @property
    def unwatched(self) -> list[str]:
        """Return the programs of child processes that cannot be watched."""
        return list(self._unwatched)

    def start(self) -> None:
        """Start watching. The hooks stay until the process ends; after :meth:`stop` they do nothing."""
        self._is_on = True
        self._remember_names()
        sys.addaudithook(self._audit)
        after_import("httpcore", self._watch_httpcore)
        after_import("httpcore2", self._watch_httpcore)
        after_import("aiohttp", self._watch_aiohttp)
        after_import("grpc", self._watch_grpc)

    def _remember_names(self) -> None:
        """Remember the addresses of the hosts that are looked up."""
        look_up = socket.getaddrinfo

        @functools.wraps(look_up)
        def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
            addresses = look_up(host, *args, **kwargs)
            if self._is_on and host:
                name = _text(host)
                self._names.update({str(each[4][0]): name for each in addresses})
            return addresses

        socket.getaddrinfo = getaddrinfo

    def _watch_httpcore(self, httpcore: ModuleType) -> None:
        """Watch the requests of httpcore, by which the transports of httpx send."""
        pools = {
            httpcore.ConnectionPool: "handle_request",
            httpcore.AsyncConnectionPool: "handle_async_request",
        }
        for pool, name in pools.items():
            setattr(pool, name, self._watched_pool(httpcore, getattr(pool, name)))

    def _watched_pool(self, httpcore: ModuleType, handle: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(handle)
        def watched(pool: Any, request: Any) -> Any:
            url = request.url
            try:
                self.check_request(request.method, url.host, url.origin.port, url.target)
            except ConnectionRefusedError as error:
                raise httpcore.ConnectError(str(error)) from error
            return handle(pool, request)

        return watched

    def _watch_aiohttp(self, aiohttp: ModuleType) -> None:
        """Watch the requests for which aiohttp takes or makes a connection."""
        connect = aiohttp.BaseConnector.connect

        @functools.wraps(connect)
        async def watched(connector: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
            url = request.url
            self.check_request(request.method, url.host, url.port, url.raw_path)
            return await connect(connector, request, *args, **kwargs)

        aiohttp.BaseConnector.connect = watched

    def _watch_grpc(self, grpc: ModuleType) -> None:
        """Watch the channels that grpc opens: its C code makes the connections, unseen by Python."""
        modules: tuple[Any, ...] = (grpc, grpc.aio)
        for module in modules:
            module.secure_channel = self._watched_channel(module.secure_channel)

    def _watched_channel(self, open_channel: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(open_channel)
        def watched(target: str, *args: Any, **kwargs: Any) -> Any:
            host, _, port = target.rpartition("/")[2].partition(":")
            self.check_request("", host, int(port or HTTPS), "")
            return open_channel(target, *args, **kwargs)

        return watched

    def stop(self) -> None:
        """Stop watching."""
        self._is_on = False

    def _audit(self, event: str, args: tuple[Any, ...]) -> None:
        if not self._is_on:
            return
        if event == "socket.connect":
            self._check_connection(args[1])
        elif event == "http.client.send":
            self._check_sent_data(*args)
        elif event == "subprocess.Popen":
            self._check_child_process(*args)
        elif event == "os.system":
            self._unwatched[_text(args[0])] = None
        elif event == "os.posix_spawn":
            self._check_child_process(args[0], args[1], None, args[2])

    def _check_connection(self, address: Any) -> None:
        if not (isinstance(address, tuple) and isinstance(address[0], str)):
            return  # a Unix socket
        host = _normalized_host(self._names.get(address[0], address[0]))
        if self._is_model(host, address[1]) and not _is_recorded():
            self._tell(host, _requesting_module())

    def _is_model(self, host: str, port: int) -> bool:
        return MODEL_HOSTS.search(host) is not None or (host, port) in self._addresses

    def _check_sent_data(self, connection: Any, data: Any) -> None:
        """Look at what ``http.client`` sends: a request, or a piece of a body."""
        line = REQUEST_LINE.match(data) if isinstance(data, bytes) else None
        if line is None:
            return
        method, path = line.groups()
        host = getattr(connection, "_tunnel_host", None) or connection.host
        port = getattr(connection, "_tunnel_port", None) or connection.port
        self.check_request(method, host, port, path)

    def check_request(
        self, method: str | bytes, host: str | bytes, port: int, path: str | bytes
    ) -> None:
        """Report a request if it goes to a model and is not recorded.

        :param path: the address's path, with the query or without.
        """
        if not self._is_on or _is_recorded():
            return
        name = _normalized_host(host)
        has_model_path = _text(method) == "POST" and _has_model_path(_text(path))
        if has_model_path:
            self.add(name, port)
        if has_model_path or self._is_model(name, port):
            self._tell(name, _requesting_module())

    def _check_child_process(
        self, executable: Any, arguments: Any, folder: Any, environment: Any
    ) -> None:
        if _describes_machine():
            return
        words = [arguments] if isinstance(arguments, (str, bytes)) else list(arguments)
        program = _text(executable or words[0])
        inherits = environment is None or any(_text(name) == VARIABLE for name in environment)
        if not (inherits and _is_python(program, [_text(word) for word in words[1:]])):
            self._unwatched[os.path.basename(program)] = None


def _has_model_path(path: str) -> bool:
    return path.partition("?")[0].rstrip("/").endswith((*MODEL_PATHS, *GOOGLE_PATHS))


def _text(value: Any) -> str:
    return os.fsdecode(value) if isinstance(value, (str, bytes, os.PathLike)) else str(value)


def _is_python(program: str, options: list[str]) -> bool:
    """Return whether a program is Python, or a Python script, that reads its environment."""
    import shutil

    executable = shutil.which(program) or program
    name = os.path.basename(executable).lower()
    if not name.startswith(("python", "pypy")):
        try:
            with open(executable, "rb") as file:
                first_line = file.readline(200)
        except OSError:
            return False
        return first_line.startswith(b"#!") and b"python" in first_line
    for option in options:
        if not re.fullmatch(r"-[a-zA-Z]+", option) or option[1] in "cmWX":
            return True
        if set(option) & set("EIS"):
            return False
    return True


def _normalized_host(host: Any) -> str:
    """Return a host's name in one spelling; the addresses of this machine are ``localhost``."""
    name = _text(host).lower().strip("[]").rstrip(".")
    with contextlib.suppress(ValueError):
        if ipaddress.ip_address(name).is_loopback:
            return LOOPBACK
    return name


def _is_recorded() -> bool:
    """Return whether a call of llmcall makes the connection or the request."""
    is_own_request = _context_value("llmcall.clients.sdk_transport", "is_own_request")
    return (
        bool(is_own_request) or _context_value("llmcall.programs.calls", "current_call") is not None
    )


def _context_value(module: str, name: str) -> Any:
    """Return the value of a module's context variable, or ``None`` if it has none.

    A module that is not imported, or that another thread is importing, has set none.
    """
    variable = getattr(sys.modules.get(module), name, None)
    return None if variable is None else variable.get(None)


def _requesting_module() -> str:
    """Return the name of the module that makes a request: the nearest one outside the libraries
    that send requests.
    """
    library = ""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        name = str(frame.f_globals.get("__name__"))
        root = name.partition(".")[0]
        if root in ("__main__", "__mp_main__"):
            return os.path.basename(str(frame.f_globals.get("__file__", name)))
        if root not in NETWORK_MODULES and root not in sys.stdlib_module_names:
            return name
        if root in NETWORK_MODULES and root not in ("asyncio", "llmcall", CHILD_MODULE):
            library = root
        frame = frame.f_back
    return library or "an unknown module"


def _describes_machine() -> bool:
    """Return whether the standard library starts a child process to describe this machine."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__") in (__name__, "subprocess", "os"):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") in DESCRIBING_MODULES


def refusal(host: str) -> OSError:
    """Return the error that a program gets if it may not connect."""
    return ConnectionRefusedError(
        errno.ECONNREFUSED, f"llmcall run refuses the connection to {host}: a replay sends nothing"
    )


# Child processes


def describe(watch: Watch, port: int, token: str, *, refuses: bool) -> str:
    """Return what a Python child process must know, as text for its environment."""
    description = {
        "port": port,
        "token": token,
        "refuses": refuses,
        "addresses": watch.addresses,
    }
    return json.dumps(description)


class ChildReport:
    """Reports a child process's requests on standard error and to the run.

    :param description: as :func:`describe` made it.
    """

    def __init__(self, description: str) -> None:
        fields = json.loads(description)
        self.refuses: bool = fields["refuses"]
        self.addresses: list[Any] = fields["addresses"]
        self._port: int = fields["port"]
        self._token: str = fields["token"]
        self._reported: set[tuple[int, str]] = set()  # by process: a fork inherits it

    def tell(self, host: str, module: str) -> None:
        """Report a request.

        :raises ConnectionRefusedError: if nothing may be sent.
        """
        self.note(host, module)
        if self.refuses:
            raise refusal(host)

    def note(self, host: str, module: str = "") -> None:
        """Print a request to standard error and report it to the run, once for a process and host."""
        let_api_errors_be_pickled()
        process = os.getpid()
        if (process, host) in self._reported:
            return
        self._reported.add((process, host))
        sender = f" (by {module})" if module else ""
        outcome = "were refused" if self.refuses else "are sent, but not recorded"
        if sys.stderr is not None:
            with contextlib.suppress(OSError, ValueError):  # it is closed
                print(
                    f"llmcall run: the requests of child process {process} to {host}{sender} {outcome}: "
                    "llmcall records only the program's own process",
                    file=sys.stderr,
                    flush=True,
                )
        message = f"{self._token} {process}".encode()
        with (
            contextlib.suppress(OSError),  # the run may have ended
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as reports,
        ):
            reports.sendto(message, ("127.0.0.1", self._port))


def let_api_errors_be_pickled() -> None:
    """Make the openai SDK's errors picklable, so that a process pool can return them.

    Their constructors need arguments that pickle does not keep, and the pool would wait forever.
    """
    # While another thread imports the SDK, it may lack the class; then there is no error yet.
    error = getattr(sys.modules.get("openai"), "APIError", None)
    if error is not None:
        error.__reduce__ = _reduce_error


def _reduce_error(error: Any) -> tuple[Any, ...]:
    return copyreg.__newobj__, (type(error), *error.args), vars(error)  # type: ignore[attr-defined]


def watch_child() -> None:
    """Watch this process if it is a child of a run."""
    description = os.environ.get(VARIABLE)
    if description:
        global _child
        report = ChildReport(description)
        _child = Watch(report.tell, report.addresses)
        _child.start()


def stop_watching_child() -> None:
    """Stop what :func:`watch_child` started, because this process has a run of its own."""
    if _child is not None:
        _child.stop()


_child: Watch | None = None
