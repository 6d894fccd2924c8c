// Keeps the numbers of a page fresh: fetches the page again and puts its live part in place of the one that is shown.
// Without this script every page works, and shows the numbers of the moment when it was loaded.
"use strict";

const EVERY = 3000;
const SLOWEST = 30000;
const from = document.body.dataset.liveFrom;
let wait = EVERY;
let timer = 0;
let paused = false;

function shown() {
  return document.querySelector("[data-live]");
}

function replace(old, fresh) {
  for (const details of old.querySelectorAll("details[id][open]")) {
    const same = fresh.querySelector("#" + CSS.escape(details.id));
    if (same) same.open = true;
  }
  const scrolled = [...old.querySelectorAll(".scroll")].map((each) => [each.scrollLeft, each.scrollTop]);
  const all = (root) => [...root.querySelectorAll("a[href], summary, [tabindex]")];
  const focused = all(old).indexOf(document.activeElement);
  old.replaceWith(fresh);
  fresh.querySelectorAll(".scroll").forEach((each, place) => {
    if (scrolled[place]) [each.scrollLeft, each.scrollTop] = scrolled[place];
  });
  const next = focused < 0 ? null : all(fresh)[focused];
  if (next) next.focus({ preventScroll: true });
}

function selecting(old) {
  const selection = document.getSelection();
  return selection && !selection.isCollapsed && old.contains(selection.anchorNode);
}

async function refresh() {
  const old = shown();
  try {
    const response = await fetch(from, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (response.redirected) {
      // The session has ended.
      location.assign(response.url);
      return;
    }
    if (!response.ok) throw new Error(String(response.status));
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.querySelector("[data-live]");
    if (fresh && old && !selecting(old)) replace(old, document.adoptNode(fresh));
    wait = EVERY;
    say("Live");
  } catch {
    wait = Math.min(wait * 2, SLOWEST);
    say("No connection, trying again");
  }
}

function plan() {
  clearTimeout(timer);
  if (paused || document.hidden) return;
  timer = setTimeout(async () => {
    await refresh();
    plan();
  }, wait);
}

const button = document.createElement("button");

function say(text) {
  if (!paused && button.textContent !== text) button.textContent = text;
}

if (from && shown()) {
  button.type = "button";
  button.className = "live";
  button.setAttribute("aria-pressed", "true");
  button.title = "The numbers refresh by themselves";
  button.textContent = "Live";
  button.addEventListener("click", () => {
    paused = !paused;
    button.setAttribute("aria-pressed", String(!paused));
    button.textContent = paused ? "Paused" : "Live";
    plan();
  });
  document.querySelector(".session").prepend(button);
  document.addEventListener("visibilitychange", async () => {
    if (!document.hidden && !paused) await refresh();
    plan();
  });
  plan();
}
