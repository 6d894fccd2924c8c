"""The channels of alerts: the log, a function of the application, a webhook, a mailbox."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import smtplib
import ssl
import time
from collections.abc import Callable
from email.message import EmailMessage
from email.policy import SMTP
from typing import Protocol
from urllib.parse import unquote, urlsplit

import httpcore

from litellm_budget_plugin.manager.alerts.alert import Alert
from litellm_budget_plugin.manager.alerts.formats import message_for, readable
from litellm_budget_plugin.settings import BudgetSettings
from litellm_budget_plugin.stores.http.deadline_backend import DeadlineBackend, set_deadline, trusted

_LOST = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, httpcore.UnsupportedProtocol)
_logger = logging.getLogger("litellm_budget_plugin")
_MOST_BYTES = 2048
_MOST_WAIT = 3600.0
_SMTP_REFUSED = 500


class NotSent(Exception):
    """The receiver did not accept an alert. `retry_after` is the wait in seconds that it asks for; `final`: a retry soon is pointless."""

    def __init__(self, why: str, *, retry_after: float = 0.0, final: bool = False) -> None:
        super().__init__(why)
        self.retry_after, self.final = retry_after, final


class Channel(Protocol):
    """A way to send alerts. `name` is the same in every process and holds no secret; `label` is for people."""

    name: str
    label: str

    def send(self, alert: Alert, seconds: float) -> None:
        """Send the alert, and return when the receiver has accepted it, within about `seconds`. Raises NotSent."""


class Log:
    """The channel that logs a WARNING."""

    name = label = "log"

    def send(self, alert: Alert, seconds: float) -> None:  # noqa: ARG002  # the protocol's
        """Log the alert. Never raises."""
        _logger.warning("alert: %s", readable(alert.text))


class Function:
    """The channel that calls a function of the application. If the function raises an error, the alert was not sent."""

    name = label = "python"

    def __init__(self, function: Callable[[Alert], object]) -> None:
        self._function = function

    def send(self, alert: Alert, seconds: float) -> None:  # noqa: ARG002
        """Call the function, without a time limit."""
        try:
            self._function(alert)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # sys.exit() in the function must not end the thread or the program
            raise NotSent(f"on_alert raised {type(error).__name__}: {error}") from error


class Webhook:
    """The channel that sends HTTP POST requests to a URL. It follows no redirects and uses no proxy."""

    def __init__(self, url: str, secret: str | None = None) -> None:
        self._url, self._secret = url, secret
        self.name = f"webhook {_digest(url)}"
        self.label = f"webhook {urlsplit(url).hostname}"

    def send(self, alert: Alert, seconds: float) -> None:
        """Post the alert. Only a status from 200 to 299 means that it was accepted."""
        body, headers = message_for(alert, self._url, self._secret, round(time.time()))
        parts = urlsplit(self._url)
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers["Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        set_deadline(time.monotonic() + seconds)
        # Not httpx: it would log the URL, which may be a secret, and has no deadline for an answer that trickles in.
        try:
            trust = trusted(None) if parts.scheme.lower() == "https" else None
            with (
                httpcore.ConnectionPool(ssl_context=trust, network_backend=DeadlineBackend()) as pool,
                pool.stream("POST", self._url, headers=list(headers.items()), content=body) as answer,
            ):
                status, size = answer.status, 0
                wait = next(
                    (value.decode("latin-1") for name, value in answer.headers if name.lower() == b"retry-after"), ""
                )
                for part in answer.iter_stream():
                    size += len(part)
                    if size > _MOST_BYTES:
                        break
        except (*_LOST, OSError, ValueError) as error:
            # The error's message may hold the URL.
            raise NotSent(f"no answer ({type(error).__name__})") from None
        if 200 <= status < 300:
            return
        if 300 <= status < 400:
            raise NotSent(f"answered {status}: redirects are not followed, give the final address", final=True)
        after = min(float(wait), _MOST_WAIT) if wait.isascii() and wait.isdigit() and len(wait) < 7 else 0.0
        raise NotSent(f"answered {status}", retry_after=after, final=status < 500 and status not in (408, 425, 429))


class Mail:
    """The channel that sends mail through a mail server."""

    def __init__(self, to: tuple[str, ...], sender: str, url: str) -> None:
        parts = urlsplit(url)
        self._to, self._sender = to, sender
        self._host, self._tls = parts.hostname or "", parts.scheme.lower() == "smtps"
        self._port = parts.port or (465 if self._tls else 587)
        self._user, self._password = unquote(parts.username or ""), unquote(parts.password or "")
        self._start_tls = not self._tls and parts.query != "starttls=off"
        self.name = f"mail {_digest(' '.join(to))}"
        self.label = f"mail by {self._host}"

    def send(self, alert: Alert, seconds: float) -> None:
        """Send the mail to the server, which must offer STARTTLS unless the URL says otherwise. Fails if any recipient is refused."""
        message = self._message(alert)
        context = ssl.create_default_context()
        try:
            server: smtplib.SMTP = (
                smtplib.SMTP_SSL(self._host, self._port, timeout=seconds, context=context)
                if self._tls
                else smtplib.SMTP(self._host, self._port, timeout=seconds)
            )
            try:
                if self._start_tls:
                    server.starttls(context=context)
                if self._user:
                    server.login(self._user, self._password)
                server.send_message(message, self._sender, list(self._to))
            finally:
                # The server has accepted the mail with its data, so an error of QUIT changes nothing.
                with contextlib.suppress(smtplib.SMTPException, OSError):
                    server.quit()
        except smtplib.SMTPResponseException as error:
            said = readable(error.smtp_error.decode("utf-8", "replace") if isinstance(error.smtp_error, bytes) else "")
            raise NotSent(f"answered {error.smtp_code} {said:.200}", final=error.smtp_code >= _SMTP_REFUSED) from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise NotSent(f"not sent ({type(error).__name__}: {readable(str(error)):.200})") from None

    def _message(self, alert: Alert) -> EmailMessage:
        message = EmailMessage(policy=SMTP)
        message["Subject"] = readable(alert.title)
        message["From"], message["To"] = self._sender, ", ".join(self._to)
        # Every repetition has the same id, so that mailboxes can drop it.
        message["Message-ID"] = f"<{alert.id}@litellm-budget.invalid>"
        message["Auto-Submitted"] = "auto-generated"
        details = "\n".join(f"{name}: {readable(str(value))}" for name, value in alert.as_dict().items())
        message.set_content(f"{readable(alert.text)}\n\n{details}\n")
        return message


def channels_of(settings: BudgetSettings, on_alert: Callable[[Alert], object] | None = None) -> list[Channel]:
    """Return the log channel, the channel for `on_alert`, and every channel that the settings name."""
    secret = settings.alert_secret.get_secret_value() if settings.alert_secret is not None else None
    found: list[Channel] = [Log()]
    if on_alert is not None:
        found.append(Function(on_alert))
    found += [Webhook(url, secret) for url in settings.alert_webhooks]
    if settings.alert_smtp_url is not None and settings.alert_mail_from is not None:
        url = settings.alert_smtp_url.get_secret_value()
        found.append(Mail(settings.alert_recipients, settings.alert_mail_from, url))
    return found


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
