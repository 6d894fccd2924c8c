// The theme puts a button for copying into a landmark of its own; each landmark needs a name of its own.
document$.subscribe(() => {
  const number = () => document.querySelectorAll(".md-code__nav:not([aria-label])").forEach((nav) => {
    nav.setAttribute("aria-label", "Code block " + (document.querySelectorAll(".md-code__nav[aria-label]").length + 1));
  });
  new MutationObserver(number).observe(document.body, { childList: true, subtree: true });
  number();
});
