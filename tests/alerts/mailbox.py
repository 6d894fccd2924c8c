"""A mail server on loopback that keeps the messages that it gets. It offers neither STARTTLS nor a login."""

from __future__ import annotations

import socketserver
import threading
from typing import NamedTuple


class Received(NamedTuple):
    """One message."""

    sender: str
    recipients: list[str]
    data: bytes


class Mailbox:
    """A mail server that accepts messages, except those to `refuse`."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.refuse = ""
        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Session)
        self._server.mailbox = self  # type: ignore[attr-defined]
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Session(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        mailbox: Mailbox = self.server.mailbox  # type: ignore[attr-defined]
        self._say("220 ready")
        sender, recipients = "", list[str]()
        while line := self.rfile.readline().decode().strip():
            verb, address = line[:4].upper(), line.partition("<")[2].partition(">")[0]
            if verb == "MAIL":
                sender, recipients = address, []
            elif verb == "RCPT" and address == mailbox.refuse:
                self._say("550 no such mailbox")
                continue
            elif verb == "RCPT":
                recipients.append(address)
            elif verb == "DATA":
                self._say("354 go on")
                mailbox.received.append(Received(sender, recipients, self._data()))
            elif verb == "QUIT":
                self._say("221 bye")
                return
            self._say("250 ok")

    def _data(self) -> bytes:
        lines = []
        while (line := self.rfile.readline()) not in (b".\r\n", b""):
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)

    def _say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")
