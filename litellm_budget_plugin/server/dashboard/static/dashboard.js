// Keeps the numbers of a page current: fetches the page again and replaces the live parts of the shown page.
// In a field for a limit, suggests windows and models for the typed amount.
// Every page also works without this script, and then shows the numbers from when it was loaded.
"use strict";

const EVERY = 3000;
const SLOWEST = 30000;
const from = document.body.dataset.liveFrom;
let wait = EVERY;
let timer = 0;
let paused = false;

function liveParts(root) {
  return [...root.querySelectorAll("[data-live]")];
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
  try {
    const response = await fetch(from, { headers: { Accept: "text/html" }, cache: "no-store" });
    if (response.redirected) {
      // The session has ended.
      location.assign(response.url);
      return;
    }
    if (!response.ok) throw new Error(String(response.status));
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = liveParts(page);
    liveParts(document).forEach((old, place) => {
      if (fresh[place] && !selecting(old)) replace(old, document.adoptNode(fresh[place]));
    });
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

if (from && liveParts(document).length) {
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

const suggestions = document.getElementById("sentences");

document.addEventListener("input", (event) => {
  if (!suggestions || event.target.getAttribute("list") !== "sentences") return;
  const amount = event.target.value.match(/^\s*(\$?[0-9][^/]*?)(?:\s*\/|\s+(?:per|for)\b|\s*$)/);
  if (!amount) return;
  const windows = suggestions.dataset.windows.split(" ").map((window) => `${amount[1]} per ${window}`);
  const models = suggestions.dataset.models.split("\n").filter(Boolean);
  const day = windows.find((each) => each.endsWith(" day"));
  const sentences = [...windows, ...models.map((model) => `${day} for ${model}`)];
  suggestions.replaceChildren(...sentences.map((value) => Object.assign(document.createElement("option"), { value })));
});
