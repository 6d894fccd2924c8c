"""Running a server: its socket, its workers, and its shutdown."""

from __future__ import annotations

import errno
import gc
import ipaddress
import logging
import multiprocessing
import os
import signal
import socket
import threading
from functools import partial
from inspect import signature
from multiprocessing.connection import wait
from tempfile import TemporaryDirectory
from typing import NamedTuple

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from litellm_budget_plugin.errors import BudgetInputError, BudgetStoreError
from litellm_budget_plugin.server.app import create_app
from litellm_budget_plugin.server.logs import log_config
from litellm_budget_plugin.server.options import ServerOptions
from litellm_budget_plugin.settings import set_env_default
from litellm_budget_plugin.stores.registry import masked

_logger = logging.getLogger("litellm_budget_plugin.server")

_KEEP_ALIVE_SECONDS = 75
_GRACE_SECONDS = 15
_MOST_CONNECTIONS = 2000
_BACKLOG = 2048


class Listening(NamedTuple):
    """The address and the manner in which a server listens. `proxies` are the addresses and networks whose X-Forwarded-For is
    trusted.
    """

    host: str
    port: int
    workers: int
    proxies: list[str]
    json_log: bool
    every_request: bool


def is_loopback(host: str) -> bool:
    """Return whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def serve(options: ServerOptions, listening: Listening) -> None:
    """Serve until SIGINT or SIGTERM, then for up to _GRACE_SECONDS until the requests in progress are answered. Raises
    BudgetStoreError if the server cannot listen on the address, BudgetInputError for several workers on memory://, and what
    opening the store raises.
    """
    if listening.workers > 1 and options.store_url.startswith("memory:"):
        raise BudgetInputError("memory:// is a ledger of one process; several workers need a file or a server")
    config = uvicorn.Config(
        partial(_worker, options),
        factory=True,
        workers=listening.workers,
        log_config=log_config(listening.json_log, listening.every_request),
        access_log=False,
        server_header=False,
        proxy_headers=bool(listening.proxies),
        forwarded_allow_ips=listening.proxies,
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    server = uvicorn.Server(config)
    with _bound(listening) as bound:
        host, port = bound.getsockname()[:2]
        _logger.info("serving %s on http://%s:%d%s", masked(options.store_url), host, port, options.root_path)
        if listening.workers > 1:
            # prometheus_client merges the metrics of all workers through this directory.
            with TemporaryDirectory(prefix="litellm-budget-metrics-") as directory:
                set_env_default("PROMETHEUS_MULTIPROC_DIR", directory)
                # Older versions of uvicorn's supervisor require the function that serves. Newer ones create it themselves.
                given = {"target": server.run} if "target" in signature(Multiprocess).parameters else {}
                Multiprocess(config, sockets=[bound], **given).run()
        else:
            server.run([bound])


def _worker(options: ServerOptions) -> FastAPI:
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), name="budget-parent", daemon=True).start()
    app = create_app(options)
    # A garbage collection stops every thread. It need not scan the objects of the start, which stay until the end.
    gc.collect()
    gc.freeze()
    return app


def _end_with(parent: int) -> None:
    # A parent that was killed cannot end its workers. They would keep the port, without supervision.
    wait([parent])
    os.kill(os.getpid(), signal.SIGTERM)


def _bound(listening: Listening) -> socket.socket:
    host, port = listening.host, listening.port
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # The protocol is named because asyncio disables Nagle's delay only for a socket that names TCP.
        bound = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise BudgetStoreError(
                f"{host}:{port} cannot be listened on: another program listens there; end it, or choose another --port"
            ) from error
        raise BudgetStoreError(f"{host}:{port} cannot be listened on: {error.strerror or error}") from error
    bound.set_inheritable(True)
    return bound
