// Keys press the buttons that carry them; everything can be done without this file but that.
(() => {
  const typing = (element) => element.matches("input, select, textarea");
  const press = (selector) => {
    const found = document.querySelector(selector);
    if (found && !found.disabled) found.click();
    return Boolean(found);
  };
  const step = (by) => {
    const lines = [...document.querySelectorAll("#list a[data-row]")];
    const here = lines.findIndex((line) => line.dataset.row === document.querySelector("#card").dataset.row);
    const next = lines[here < 0 ? 0 : here + by];
    if (next) next.click();
  };
  const focus = (id) => {
    const found = document.getElementById(id);
    if (found) found.focus();
    return Boolean(found);
  };
  const moves = {
    n: () => step(1), ArrowRight: () => step(1), p: () => step(-1), ArrowLeft: () => step(-1),
    m: () => focus("note"), l: () => focus("other"), "/": () => focus("words"),
  };
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (typing(event.target)) {
      const ends = event.key === "Escape" || (event.key === "Enter" && event.target.id === "note");
      if (ends) { event.target.blur(); event.preventDefault(); }
      return;
    }
    const move = moves[event.key];
    if (move) { move(); event.preventDefault(); return; }
    if (event.key.length === 1 && press(`[data-key="${CSS.escape(event.key)}"]`)) event.preventDefault();
  });
  document.getElementById("keys").addEventListener("click", (event) => {
    const help = document.getElementById("help");
    help.hidden = !help.hidden;
    event.currentTarget.setAttribute("aria-expanded", String(!help.hidden));
  });
  const mark = () => {
    const row = document.querySelector("#card").dataset.row;
    for (const line of document.querySelectorAll("#list a[data-row]")) {
      if (line.dataset.row === row) line.setAttribute("aria-current", "true");
      else line.removeAttribute("aria-current");
    }
  };
  document.addEventListener("htmx:afterSettle", mark);
  const say = (text) => { document.getElementById("problem").textContent = text; };
  document.addEventListener("htmx:responseError", (event) => say(event.detail.xhr.responseText || "The server refused that."));
  document.addEventListener("htmx:sendError", () => say("The server does not answer. Nothing decided so far is lost; start the review again."));
  document.addEventListener("htmx:beforeRequest", () => say(""));
})();
