"""The way of an alert to its receivers, and the behaviour if they do not accept it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timezone
from decimal import Decimal
from email import message_from_bytes
from email.policy import default
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litellm_budget_plugin.errors import BudgetSettingsError
from litellm_budget_plugin.manager.alerts.alert import Alert
from litellm_budget_plugin.manager.alerts.channels import Channel, Function, Mail, NotSent, Webhook, channels_of
from litellm_budget_plugin.manager.alerts.formats import message_for
from litellm_budget_plugin.settings import BudgetSettings
from tests.alerts.conftest import Clocked, Process
from tests.alerts.mailbox import Mailbox
from tests.alerts.receiver import Receiver

ALERT = Alert(
    "id-1", "threshold", "p", "user 'alice' has used 80 % of $1", datetime(2026, 11, 29, tzinfo=timezone.utc),
    "user", "alice", "$1", "usd", 80, Decimal("0.8"), Decimal(0), Decimal(1),
)  # fmt: skip
SLACK = "https://hooks.slack.com/services/T0/B0/SECRET"
DISCORD = "https://discord.com/api/webhooks/1/SECRET"
TEAMS = "https://prod-1.westeurope.logic.azure.com:443/workflows/SECRET"
Make = Callable[..., Process]


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    opened = Mailbox()
    yield opened
    opened.close()


def test_json_is_signed(receiver: Receiver) -> None:
    Webhook(receiver.url, "key").send(ALERT, 5)
    (request,) = receiver.requests
    assert request.json == {
        "id": "id-1", "kind": "threshold", "project": "p", "text": "user 'alice' has used 80 % of $1",
        "at": "2026-11-29T00:00:00+00:00", "scope": "user", "subject": "alice", "budget": "$1", "unit": "usd",
        "threshold": 80, "spent": "0.8", "held": "0", "limit": "1",
    }  # fmt: skip
    signed = request.headers["x-litellm-budget-timestamp"].encode() + b"." + request.body
    expected = hmac.new(b"key", signed, hashlib.sha256).hexdigest()
    assert request.headers["x-litellm-budget-signature"] == f"sha256={expected}"
    Webhook(receiver.url).send(ALERT, 5)
    assert "x-litellm-budget-signature" not in receiver.requests[1].headers


@pytest.mark.parametrize(
    ("step", "why", "final"),
    [
        (500, "answered 500", False),
        (503, "answered 503", False),
        (404, "answered 404", True),
        ((302, {"Location": "/hook"}), "redirects are not followed", True),
        ((307, {"Location": "http://127.0.0.1:1/"}), "redirects are not followed", True),
        ("hang", "no answer", False),
    ],
)
def test_what_is_not_a_success_was_not_sent(receiver: Receiver, step: Any, why: str, final: bool) -> None:
    receiver.script.append(step)
    with pytest.raises(NotSent, match=why) as raised:
        Webhook(f"{receiver.url}?token=SECRET").send(ALERT, 0.3)
    assert raised.value.final is final and len(receiver.requests) == 1
    assert "SECRET" not in str(raised.value)


@pytest.mark.parametrize(("said", "seconds"), [("30", 30.0), ("99999", 3600.0), ("soon", 0.0), ("-1", 0.0)])
def test_a_receiver_may_ask_to_wait(receiver: Receiver, said: str, seconds: float) -> None:
    receiver.script.append((429, {"Retry-After": said}))
    with pytest.raises(NotSent) as raised:
        Webhook(receiver.url).send(ALERT, 5)
    assert raised.value.retry_after == seconds and not raised.value.final


def test_no_log_has_the_address(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    receiver.script += [200, 500]
    with caplog.at_level(logging.DEBUG):
        Webhook(receiver.url.replace("//", "//user:SECRET@") + "/SECRET?token=SECRET").send(ALERT, 5)
        with pytest.raises(NotSent):
            Webhook(receiver.url + "/SECRET").send(ALERT, 5)
    assert receiver.requests[0].headers["authorization"] == "Basic dXNlcjpTRUNSRVQ="
    assert receiver.requests[0].path == "/hook/SECRET?token=SECRET"
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("step", ["drip", "flood"])
def test_an_answer_has_an_end(receiver: Receiver, step: str) -> None:
    """An answer that trickles in ends with the time-out. Of an answer without an end, only a bounded part is read."""
    receiver.script.append(step)
    begun = time.monotonic()
    if step == "drip":
        with pytest.raises(NotSent, match="no answer"):
            Webhook(receiver.url).send(ALERT, 0.5)
    else:
        Webhook(receiver.url).send(ALERT, 5)
    assert time.monotonic() - begun < 5


def test_a_receiver_that_is_away() -> None:
    with pytest.raises(NotSent, match="no answer"):
        Webhook("http://127.0.0.1:1/").send(ALERT, 1)


@given(st.text(max_size=60))
def test_no_text_is_a_mention_a_link_or_a_header(text: str) -> None:
    alert = replace(ALERT, text=f"<!channel> @everyone [x](http://evil) {text}\r\nBcc: x@example.com", project=text)
    slack = json.loads(message_for(alert, SLACK, None, 1)[0])
    assert "<" not in slack["text"] and "&lt;!channel&gt;" in slack["text"]
    discord = json.loads(message_for(alert, DISCORD, None, 1)[0])
    assert discord["allowed_mentions"] == {"parse": []} and len(discord["content"]) < 2000
    (attachment,) = json.loads(message_for(alert, TEAMS, None, 1)[0])["attachments"]
    (block,) = attachment["content"]["body"]
    assert block["type"] == "RichTextBlock" and block["inlines"][0]["type"] == "TextRun"
    for shown in (slack["text"], discord["content"], block["inlines"][0]["text"]):
        assert shown.isprintable()
    mail = message_from_bytes(bytes(Mail(("a@b.example",), "c@d.example", "smtp://h")._message(alert)), policy=default)
    assert sorted(mail.keys()) == sorted(
        [
            "Subject",
            "From",
            "To",
            "Message-ID",
            "Auto-Submitted",
            "Content-Type",
            "Content-Transfer-Encoding",
            "MIME-Version",
        ]
    )


def test_hosts_that_only_look_like_others_get_json() -> None:
    for url in (
        "https://hooks.slack.com.evil.example/x",
        "https://notdiscord.com/x",
        "https://slack.example/hooks.slack.com",
    ):
        assert json.loads(message_for(ALERT, url, None, 1)[0])["id"] == "id-1"


def test_mail_is_handed_to_the_server(mailbox: Mailbox) -> None:
    settings = BudgetSettings(
        alert_mail_to="ops@example.com, boss@example.com", alert_mail_from="bot@example.com",
        alert_smtp_url=f"smtp://127.0.0.1:{mailbox.port}?starttls=off",
    )  # fmt: skip
    (_, mail) = channels_of(settings)
    mail.send(replace(ALERT, text="user 'ä\n.\r\n.bob' has used 80 %"), 5)
    (received,) = mailbox.received
    assert received.sender == "bot@example.com" and received.recipients == ["ops@example.com", "boss@example.com"]
    message = message_from_bytes(received.data, policy=default)
    assert message["Subject"] == "Budget alert (p)" and message["To"] == "ops@example.com, boss@example.com"
    assert "user 'ä\ufffd.\ufffd\ufffd.bob' has used 80 %" in message.get_content()


def test_mail_that_is_not_taken(mailbox: Mailbox) -> None:
    url = f"smtp://127.0.0.1:{mailbox.port}"
    with pytest.raises(NotSent, match="STARTTLS"):  # a server without it must not see the message
        Mail(("a@example.com",), "b@example.com", url).send(ALERT, 5)
    mailbox.refuse = "a@example.com"
    with pytest.raises(NotSent):
        Mail(("a@example.com",), "b@example.com", f"{url}?starttls=off").send(ALERT, 5)
    assert mailbox.received == []


@pytest.mark.parametrize(
    "values",
    [
        {"alert_webhook": "ftp://host/SECRET"},
        {"alert_webhook": "https:///SECRET"},
        {"alert_webhook": "https://good.example/SECRET,nothing"},
        {"alert_smtp_url": "https://user:SECRET@host", "alert_mail_to": "a@b.c", "alert_mail_from": "a@b.c"},
        {"alert_smtp_url": "smtp://user:SECRET@host:99999", "alert_mail_to": "a@b.c", "alert_mail_from": "a@b.c"},
        {"alert_smtp_url": "smtp://host?SECRET", "alert_mail_to": "a@b.c", "alert_mail_from": "a@b.c"},
        {"alert_mail_to": "nobody", "alert_mail_from": "a@b.c", "alert_smtp_url": "smtp://host"},
        {"alert_mail_to": "a@b.c\nBcc:x@y.z", "alert_mail_from": "a@b.c", "alert_smtp_url": "smtp://host"},
        {"alert_mail_to": "a@b.c"},
        {"alert_at": "eighty"},
        {"alert_at": "0"},
        {"alert_at": "1001"},
        {"alert_at": [80, 100.5]},
    ],
)
def test_bad_settings_stop_the_start_and_show_no_secret(values: dict[str, Any]) -> None:
    with pytest.raises(BudgetSettingsError) as raised:
        BudgetSettings(**values)
    assert "ALERT" in str(raised.value) and "SECRET" not in str(raised.value)


def test_settings_mask_what_is_secret() -> None:
    settings = BudgetSettings(
        alert_webhook=f"{SLACK} {DISCORD}", alert_secret="SECRET", alert_mail_to="a@b.c", alert_mail_from="a@b.c",
        alert_smtp_url="smtp://u:SECRET@host", alert_at=[100, 80],
    )  # fmt: skip
    assert "SECRET" not in repr(settings) and settings.alert_per_cents == (80, 100)
    for channel in channels_of(settings):
        assert "SECRET" not in channel.name + channel.label + repr(channel)


class Flaky:
    """A channel that first fails with each error in its `script`."""

    label = "flaky"

    def __init__(self, name: str, *script: NotSent) -> None:
        self.name, self.script, self.sent, self.tries = name, list(script), list[Alert](), 0

    def send(self, alert: Alert, seconds: float) -> None:
        self.tries += 1
        if self.script:
            raise self.script.pop(0)
        self.sent.append(alert)


def _with(process: Process, *channels: Channel) -> Process:
    process.watch.sender.channels = list(channels)
    return process


def test_a_channel_that_fails_makes_no_other_one_send_twice(process: Make, store: Clocked) -> None:
    bad, good = Flaky("bad", *[NotSent("no")] * 7), Flaky("good")
    one = _with(process(user_limits="$1", alert_at="80"), bad, good)
    one.charge("0.9")
    one.tick()
    assert (bad.tries, len(good.sent)) == (1, 1)
    one.tick(0.4)
    assert bad.tries == 1  # it waits before it tries again
    for _ in range(60):
        one.tick(20)
    assert (bad.tries, len(bad.sent), len(good.sent)) == (8, 1, 1)
    assert one.watch.sender.waiting == 0


def test_it_waits_as_long_as_it_is_asked_to(process: Make) -> None:
    slow = Flaky("slow", NotSent("busy", retry_after=300))
    one = _with(process(user_limits="$1", alert_at="80"), slow)
    one.charge("0.9")
    one.tick()
    one.tick(298)
    assert slow.tries == 1
    one.tick(3)
    assert len(slow.sent) == 1


def test_a_hanging_receiver_delays_no_other_alert(process: Make) -> None:
    """While a channel fails, only one alert after each pause tests whether it accepts alerts again."""
    bad, good = Flaky("bad", *[NotSent("no answer")] * 99), Flaky("good")
    one = _with(process(user_limits="$1", alert_at="80"), bad, good)
    for number in range(20):
        one.charge("0.9", *[_user(number)])
    one.tick()
    assert len(good.sent) == 20 and bad.tries == 1


def test_what_cannot_wait_any_more_is_found_again(
    process: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("litellm_budget_plugin.manager.alerts.sender.MOST_WAITING", 5)
    good = Flaky("good")
    one = _with(process(user_limits="$1", alert_at="80"), good)
    for number in range(12):
        one.charge("0.9", _user(number))
    with caplog.at_level(logging.WARNING, "litellm_budget_plugin"):
        one.tick()
    assert len(good.sent) == 5 and "left to a later scan" in caplog.text
    assert caplog.text.count("left to a later scan") == 1
    for _ in range(15):
        one.tick(61)
    assert sorted(alert.subject or "" for alert in good.sent) == sorted(f"u{number}" for number in range(12))


def test_closing_sends_what_waits_and_gives_back_what_it_cannot(process: Make) -> None:
    bad, good = Flaky("bad", *[NotSent("no")] * 99), Flaky("good")
    one = _with(process(user_limits="$1", alert_at="80"), bad, good)
    one.charge("0.9")
    one.watch.retire()
    assert len(good.sent) == 1 and bad.tries == 1
    two = _with(process(user_limits="$1", alert_at="80"), heir := Flaky("bad"))
    two.charge("0.01")
    two.tick()  # the claim is free at once, without the end of a lease
    assert len(heir.sent) == 1


def test_threads_that_find_the_same_alert_send_it_once(process: Make) -> None:
    good = Flaky("good")
    one = _with(process(user_limits="$1", alert_at="80"), good)
    one.charge("0.9")
    threads = [threading.Thread(target=one.watch._look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.tick()
    assert len(good.sent) == 1


class Rude:
    """A channel that raises the errors in its script, as an application's code may."""

    name = label = "rude"

    def __init__(self, *script: BaseException) -> None:
        self.script, self.sent, self.taken = list(script), list[Alert](), threading.Event()

    def send(self, alert: Alert, seconds: float) -> None:
        if self.script:
            raise self.script.pop(0)
        self.sent.append(alert)
        self.taken.set()


class _Odd(BaseException):
    pass


RAISED = [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), asyncio.CancelledError(), _Odd("odd"), OSError("away")]


@pytest.mark.parametrize("raised", RAISED, ids=lambda raised: type(raised).__name__)
@pytest.mark.parametrize("kind", ["function", "channel"])
def test_whatever_a_receiver_raises_means_not_sent(process: Make, kind: str, raised: BaseException) -> None:
    rude, good = Rude(raised), Flaky("good")
    given = Function(lambda alert: rude.send(alert, 1)) if kind == "function" else rude
    one = _with(process(user_limits="$1", alert_at="80"), given, good)
    del one.watch.sender._start  # type: ignore[method-assign]  # its thread runs
    one.charge("0.9")
    one.watch.run()
    thread = one.watch.sender._thread
    assert thread is not None
    for _ in range(100):
        # The alert is tried again soon, or when a scan finds it.
        one.store.now += 61_000_000
        one.charge("0.001")
        one.watch.run()
        one.watch.sender._wake.set()
        if rude.taken.wait(0.2):
            break
    assert [alert.threshold for alert in rude.sent] == [80] and one.watch.sender._thread is thread and thread.is_alive()
    one.watch.retire()
    assert [alert.threshold for alert in good.sent] == [80] and len(rude.sent) == 1


def test_a_thread_that_died_is_replaced(process: Make) -> None:
    one = _with(process(user_limits="$1", alert_at="80"), rude := Rude())
    one.charge("0.9")
    one.watch.run()  # the alert waits, and no thread runs
    assert one.watch.sender.waiting == 1
    del one.watch.sender._start  # type: ignore[method-assign]
    one.charge("0.001")
    one.store.now += 1_000_000
    one.watch.run()  # the same alert is found again
    assert rude.taken.wait(20)
    one.watch.retire()


def test_a_claim_that_cannot_be_settled_stops_no_other_alert(process: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    rude = Rude()
    one = _with(process(user_limits="$1", alert_at="80"), rude)
    del one.watch.sender._start  # type: ignore[method-assign]

    def broken(claim: object) -> None:
        raise OSError("the journal is on a disk that is full")

    with monkeypatch.context() as patch:
        patch.setattr(one.watch.sender.claims, "done", broken)
        one.charge("0.9")
        one.watch.run()
        assert rude.taken.wait(20)
        one.watch.sender._stepping.acquire()
        one.watch.sender._stepping.release()
    rude.taken.clear()
    one.store.now += 1_000_000
    one.charge("0.9", _user(1))
    one.watch.run()
    assert rude.taken.wait(20)
    one.watch.retire()
    assert [alert.subject for alert in rude.sent] == ["alice", "u1"]  # each of them once


def test_somebody_who_interrupts_the_end_is_obeyed(process: Make) -> None:
    one = _with(process(user_limits="$1", alert_at="80"), Rude(KeyboardInterrupt()))
    one.charge("0.9")
    with pytest.raises(KeyboardInterrupt):
        one.watch.retire()


def _user(number: int) -> Any:
    from litellm_budget_plugin.core.accounts import Subject

    return Subject("user", f"u{number}")
