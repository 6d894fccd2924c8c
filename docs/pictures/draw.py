"""Draw the pictures of the documentation: `python docs/pictures/draw.py` writes the SVG files beside this script.

Each picture has a media query for the reader's light or dark scheme, so that one file serves both.
"""

from __future__ import annotations

from html import escape
from pathlib import Path

_STYLE = """
text { font: 14px system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; fill: #1c2733; text-anchor: middle }
.small { font-size: 12px; fill: #4a5a6a }
.strong { font-weight: 600 }
.box { fill: #f4f7fa; stroke: #7d8ea0 }
.ours { fill: #e3f1ea; stroke: #2c7a56 }
.stop { fill: #fbe9e7; stroke: #b3402e }
.arrow { stroke: #4a5a6a; fill: none; stroke-width: 1.5; marker-end: url(#head) }
#head path { fill: #4a5a6a }
@media (prefers-color-scheme: dark) {
  text { fill: #e4ebf2 } .small { fill: #aebccb }
  .box { fill: #1d2731; stroke: #75879a } .ours { fill: #16322a; stroke: #58b48b } .stop { fill: #3b201d; stroke: #e08a7a }
  .arrow { stroke: #aebccb } #head path { fill: #aebccb }
}
"""
_HEAD = '<marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto"><path d="M0 0L8 4L0 8z"/></marker>'
_LINE = 19


class Picture:
    """A picture of boxes and arrows. A screen reader reads `title` and `description`."""

    def __init__(self, width: int, height: int, title: str, description: str) -> None:
        self.width, self.height, self.title, self.description = width, height, title, description
        self.parts: list[str] = []

    def text(self, x: int, y: int, words: str, kind: str = "") -> None:
        """Add one line of text, centred at x, with its base line at y."""
        self.parts.append(f'<text x="{x}" y="{y}" class="{kind}">{escape(words)}</text>')

    def box(self, x: int, y: int, width: int, height: int, *lines: str, kind: str = "box") -> None:
        """Add a box with a heading and small lines under it."""
        self.parts.append(f'<rect x="{x}" y="{y}" width="{width}" height="{height}" rx="8" class="{kind}"/>')
        top = y + (height - _LINE * len(lines)) // 2 + 14
        for number, line in enumerate(lines):
            self.text(x + width // 2, top + _LINE * number, line, "small" if number else "strong")

    def arrow(self, *points: tuple[int, int]) -> None:
        """Add an arrow through the points, with its head at the last one."""
        path = " L".join(f"{x} {y}" for x, y in points)
        self.parts.append(f'<path d="M{path}" class="arrow"/>')

    def svg(self) -> str:
        """Return the picture as the text of an SVG file."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width} {self.height}" width="{self.width}" '
            f'height="{self.height}" role="img"><title>{escape(self.title)}</title><desc>{escape(self.description)}</desc>'
        )
        return "\n".join([head, f"<style>{_STYLE}</style><defs>{_HEAD}</defs>", *self.parts, "</svg>"]) + "\n"


def hold_call_settle() -> Picture:
    """Draw how the money of one call is held, charged and freed."""
    picture = Picture(
        860, 250, "Hold, call, settle",
        "Before a call, the most that it may cost is held on the ledger, or the call is refused. Afterwards what it did cost is charged.",
    )  # fmt: skip
    picture.box(10, 30, 150, 70, "your application", "litellm.completion()")
    picture.box(210, 30, 180, 70, "1. hold", "room for at most $0.0125?", kind="ours")
    picture.box(450, 30, 150, 70, "2. call", "the provider answers")
    picture.box(660, 30, 190, 70, "3. settle", "charge $0.0031, free the rest", kind="ours")
    picture.box(210, 160, 180, 70, "refused", "no request leaves", kind="stop")
    picture.box(450, 160, 400, 70, "one ledger for all processes", "SQLite, PostgreSQL, Redis, or an endpoint of yours")
    picture.arrow((160, 65), (206, 65))
    picture.arrow((390, 65), (446, 65))
    picture.text(418, 57, "yes", "small")
    picture.arrow((600, 65), (656, 65))
    picture.arrow((260, 100), (260, 156))
    picture.text(244, 132, "no", "small")
    picture.arrow((370, 100), (500, 156))
    picture.arrow((755, 100), (755, 156))
    return picture


def way_of_a_call() -> Picture:
    """Draw the functions that one call passes through."""
    picture = Picture(
        860, 520, "The way of a call",
        "From LiteLLM's function_setup through the gate, who pays, the estimate and the reserve to the provider, and back to settling.",
    )  # fmt: skip
    stations = [
        (
            "litellm.completion(), acompletion(), a Router, the proxy",
            "LiteLLM looks function_setup up for each call",
            "box",
        ),
        ("hooks/gate.py: function_setup", "the gate: free functions pass, all others go on", "ours"),
        ("hooks/principal.py", "who pays: user, team, tags, run", "ours"),
        ("pricing/bound.py", "the most that the request can cost", "ours"),
        ("hooks/admission.py, manager/ledger.py", "Reserve, sent to the store: granted, or BudgetExceeded", "ours"),
        ("hooks/gate.py: pre_call", "the body to be sent is read: hold more, or refuse", "ours"),
        ("the provider", "answers, streams, fails, or is dropped", "box"),
        ("hooks/settlement.py, pricing/actual.py", "what it did cost: Settle, exactly once", "ours"),
    ]
    for number, (name, what, kind) in enumerate(stations):
        top = 10 + number * 64
        picture.box(20, top, 500, 48, name, what, kind=kind)
        if number:
            picture.arrow((270, top - 16), (270, top - 3))
    picture.box(600, 266, 240, 48, "stores/", "rows: add, or one transaction")
    picture.box(600, 394, 240, 48, "core/", "the rules, with no I/O")
    picture.arrow((520, 290), (596, 290))
    picture.arrow((720, 314), (720, 390))
    picture.arrow((520, 482), (560, 482), (560, 302), (596, 302))
    return picture


def rooms() -> Picture:
    """Draw the packages and their imports."""
    picture = Picture(
        860, 400, "The rooms of the package",
        "Imports point downwards only: the command line and the doors for applications on top, then hooks and server, manager and pricing, stores, core.",
    )  # fmt: skip
    picture.box(20, 10, 400, 58, "cli/", "the command litellm-budget")
    picture.box(440, 10, 400, 58, "asgi, wsgi, auto, testing, proxy", "the doors for applications")
    picture.box(20, 92, 400, 58, "server/, metrics/", "HTTP, dashboard, Prometheus")
    picture.box(440, 92, 400, 58, "hooks/", "the only room that patches LiteLLM", kind="ours")
    picture.box(20, 174, 400, 58, "manager/", "BudgetManager, worker, journal, alerts", kind="ours")
    picture.box(
        440,
        174,
        400,
        140,
        "pricing/",
        "the most that a call may cost, what it did cost,",
        "by LiteLLM's own functions",
        kind="ours",
    )
    picture.box(20, 256, 400, 58, "stores/", "rows: memory, SQLite, Redis, PostgreSQL, HTTP")
    picture.box(
        20, 338, 820, 52, "core/", "the rules, once: money, windows, sentences, commands; no I/O, no clock, no LiteLLM"
    )
    for left, tops in ((220, (68, 150, 232, 314)), (640, (68, 150, 314))):
        for top in tops:
            picture.arrow((left, top), (left, top + 21))
    picture.arrow((460, 150), (400, 171))
    picture.arrow((420, 203), (437, 203))
    return picture


PICTURES = {"hold-call-settle": hold_call_settle, "way-of-a-call": way_of_a_call, "rooms": rooms}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        Path(__file__).with_name(f"{name}.svg").write_text(draw().svg(), "utf-8")
