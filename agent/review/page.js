"use strict";
// Every text comes as JSON and goes into text nodes. Nothing here builds markup of what it was told.
const at = (id) => document.getElementById(id);
const base = location.pathname.replace(/[^/]*$/, "");
const done = [];
let items = [], shown = null, filter = "open", view = "picture", busy = false, asked = 0, loading = false, pictured = "";

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function say(text, bad) {
  at("said").textContent = text;
  at("said").classList.toggle("bad", Boolean(bad));
}

async function ask(path, told) {
  const options = told === undefined ? {} : {
    method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(told),
  };
  let answer;
  try {
    answer = await fetch(base + path, {credentials: "omit", cache: "no-store", ...options});
  } catch {
    throw Object.assign(new Error("The review server does not answer. Is `flawscope review serve` still running?"), {status: 0});
  }
  const said = await answer.json();
  if (!answer.ok) throw Object.assign(new Error(said.error), {status: answer.status});
  return said;
}

const isOpen = (item) => item.decision === null;
const words = (name) => name.replaceAll("_", " ");
const waits = () => loading || Boolean(shown && pictured !== shown.id);
const still = () => busy || waits();  // nothing is decided on another part's picture
const toConfirm = () => Boolean(shown && shown.decision && !shown.confirmed_by);
const inFilter = (item) => filter === "all" || (filter === "open") === isOpen(item);

function summary(item) {
  if (item.decision) return `${item.decision.verdict}${item.decision.defect_type ? " · " + words(item.decision.defect_type) : ""} by ${item.decided_by}`;
  return [item.product, item.serial, item.source === "thread" ? "a workflow waits" : ""].filter(Boolean).join(" · ");
}

function drawList() {
  const rows = items.filter((item) => inFilter(item) || (shown && item.id === shown.id));
  at("list").replaceChildren(...rows.map((item) => {
    const row = element("li"), button = element("button");
    button.type = "button";
    button.dataset.id = item.id;
    button.title = item.name;
    if (shown && item.id === shown.id) button.setAttribute("aria-current", "true");
    const verdict = item.decision ? item.decision.verdict : item.verdict;
    button.append(element("span", item.name, "what"), element("span", verdict, "tag " + verdict), element("span", summary(item), "of"));
    row.append(button);
    return row;
  }));
  const open = items.filter(isOpen).length, confirmed = items.filter((item) => item.confirmed_by).length;
  at("progress").textContent = items.length ? `${open} open, ${items.length - open} decided${confirmed ? `, ${confirmed} of them confirmed` : ""}` : "";
  at("nothing").hidden = rows.length > 0;
  at("nothing").textContent = items.length ? (filter === "open" ? "All decided." : "Nothing here.") : "Nothing waits for a person.";
  document.title = open ? `(${open}) Review · Flawscope` : "Review · Flawscope";
}

async function load() {
  const told = await ask("queue");
  items = told.items;
  at("reviewer").textContent = "as " + told.by;
}

function setButtons() {
  const open = shown !== null && shown.decision === null;
  at("frame").setAttribute("aria-busy", String(waits()));
  at("ok").disabled = !open || still() || Boolean(shown.unread);
  at("ng").disabled = !open || still();
  at("noting").hidden = !open;
  at("confirming").hidden = !toConfirm();
  at("confirm").disabled = still();
  at("skip").disabled = still() || !items.some(isOpen);
  at("undo").disabled = still() || !(done.length || (shown && shown.decision));
  for (const id of ["mark", "zoom"]) at(id).disabled = shown === null;
  at("view").disabled = shown === null || !shown.map;
}

async function show(id) {
  const mine = ++asked;  // answers may overtake each other: only what was asked for last is shown, and decided
  loading = true;
  setButtons();
  if (id === undefined) {
    shown = null;
    drawItem();
    return;
  }
  try {
    const told = await ask("item/" + encodeURIComponent(id));
    if (mine !== asked) return;
    if (!shown || shown.id !== told.id) at("note").value = "";
    shown = told;
    const row = items.findIndex((item) => item.id === told.id);
    if (row >= 0) items[row] = {...items[row], ...told};
  } catch (error) {
    if (mine !== asked) return;
    say(error.message, true);
    shown = null;
  }
  drawItem();
}

function drawItem() {
  loading = false;
  drawList();
  setButtons();
  const facts = at("facts");
  facts.replaceChildren();
  at("verdict").replaceChildren();
  at("name").textContent = shown ? shown.name : (items.length ? "All decided" : "Nothing to review");
  at("frame").hidden = !shown;
  at("missing").hidden = true;
  at("boxes").replaceChildren();
  at("size").textContent = "";
  if (!shown) {
    at("picture").removeAttribute("src");
    pictured = "";
    return;
  }
  const percent = (share) => share === null || share === undefined ? null : `${(100 * share).toFixed(0)} %`;
  const chance = percent(shown.probability);
  at("verdict").append(element("span", shown.verdict, "tag " + shown.verdict), " " + (chance ? `chance of a defect ${chance}` : "no probability: not calibrated"));
  const kinds = shown.candidates.slice(0, 4).map((one) => `${words(one.name)} ${percent(one.share)}`).join(", ") || (shown.defect_type ? words(shown.defect_type) : "");
  const score = shown.score === null ? "" : shown.score.toFixed(2) + (shown.threshold === null ? "" : ` (threshold ${shown.threshold.toFixed(2)})`);
  const rows = [
    ["Decided", shown.decision ? summary(shown) + (shown.confirmed_by ? `, confirmed by ${shown.confirmed_by}` : "") : ""],
    ["Note", shown.decision ? shown.decision.note : ""],
    ["Product", shown.product], ["Serial", shown.serial], ["Lot", shown.lot], ["Station", shown.station],
    ["Looks like", kinds], ["Score", score],
    ["Where", shown.regions.map((one) => `${one.id}: ${one.place}`).join(", ")],
    ["Why", shown.reason], ["Never OK", shown.unread], ["Picture", shown.image],
  ];
  for (const [name, text] of rows) if (text) facts.append(element("dt", name), element("dd", text));
  at("size").textContent = shown.size_px ? `${shown.size_px[0]} × ${shown.size_px[1]} px` : "";
  drawPicture();
}

function drawPicture() {
  const picture = at("picture");
  picture.alt = `${shown.name}: ${shown.regions.length} marked ${shown.regions.length === 1 ? "area" : "areas"}`;
  const kind = shown.map ? view : "picture";
  at("view").setAttribute("aria-pressed", String(kind === "overlay"));
  picture.dataset.id = shown.id;
  picture.src = `${base}${kind}/${encodeURIComponent(shown.id)}`;
  const boxes = at("boxes");
  boxes.replaceChildren();
  if (!shown.size_px) return;
  boxes.setAttribute("viewBox", `0 0 ${shown.size_px[0]} ${shown.size_px[1]}`);
  for (const region of shown.regions) {
    for (const className of ["outer", "inner"]) {
      const box = document.createElementNS("http://www.w3.org/2000/svg", "rect"), [x0, y0, x1, y1] = region.box;
      for (const [key, value] of Object.entries({x: x0, y: y0, width: x1 - x0, height: y1 - y0, class: className})) box.setAttribute(key, value);
      boxes.append(box);
    }
  }
}

function fit() {
  const picture = at("picture"), stage = at("stage");
  if (!picture.naturalWidth) return;
  const scale = Math.min((stage.clientWidth - 24) / picture.naturalWidth, (stage.clientHeight - 24) / picture.naturalHeight, 4);
  at("frame").style.setProperty("--shown-width", `${Math.max(1, Math.floor(picture.naturalWidth * scale))}px`);
  at("frame").style.setProperty("--shown-height", `${Math.max(1, Math.floor(picture.naturalHeight * scale))}px`);
}

async function next() {
  const open = items.filter(isOpen);
  if (!open.length) return show();
  const here = shown ? items.findIndex((item) => item.id === shown.id) : -1;
  const after = items.slice(here + 1).find(isOpen) || open[0];
  await show(after.id);
  const row = at("list").querySelector("[aria-current]");
  if (row) row.scrollIntoView({block: "nearest"});
}

async function step(path, told, said) {
  if (busy) return;
  busy = true;
  setButtons();
  try {
    const outcome = await ask(path, told);
    await load();
    if (path === "decide") {
      done.push(outcome.id);
      busy = false;
      await next();
    } else {
      busy = false;
      await show(outcome.id);
    }
    say(outcome.problem ? `${said} The workflow could not be told yet: ${outcome.problem}` : said, Boolean(outcome.problem));
  } catch (error) {
    busy = false;
    if (error.status) {
      await load();
      await show(told.id);
    }
    const overtaken = path === "decide" && error.status === 409 && shown && shown.decision;
    say(overtaken ? `Somebody was quicker: ${summary(shown)}. Undo takes that back.` : error.message, true);
  }
  setButtons();
}

function decide(verdict, kind) {
  if (!shown || shown.decision || still()) return;
  if (verdict === "OK" && shown.unread) return say(`It could not be read, so it cannot be OK. ${shown.unread}`, true);
  const told = {id: shown.id, version: shown.version, verdict, defect_type: kind, note: at("note").value};
  step("decide", told, `${shown.name}: ${verdict}${kind ? ", " + words(kind) : ""}.`);
}

function confirmShown() {
  if (still() || !toConfirm()) return;
  step("confirm", {id: shown.id, version: shown.version}, `${shown.name}: ${shown.decision.verdict} confirmed.`);
}

function undo() {
  const last = shown && shown.decision ? shown.id : done.at(-1);
  const item = items.find((one) => one.id === last);
  if (!item) return done.pop();
  if (!item.confirmed_by) done.splice(0, done.length, ...done.filter((id) => id !== item.id));
  step("undo", {id: item.id, version: item.version}, `${item.name}: ${item.confirmed_by ? "no longer confirmed" : "open again"}.`);
}

function openKinds() {
  if (!shown || shown.decision || still()) return;
  const names = [...new Set([...shown.candidates.map((one) => one.name), ...shown.types])].filter((name) => name !== "unknown").slice(0, 9);
  at("types").replaceChildren(...names.map((name, index) => {
    const button = element("button", `${words(name)} `);
    button.type = "button";
    button.dataset.kind = name;
    button.append(element("kbd", String(index + 1)));
    return button;
  }));
  at("other").value = "";
  at("kind").showModal();
  at("other").focus();
}

function decideKind(kind) {
  if (still()) return;
  at("kind").close();
  decide("NG", kind);
}

function toggle(button, on) {
  button.setAttribute("aria-pressed", String(on));
  return on;
}
const pressed = (button) => button.getAttribute("aria-pressed") === "true";

const actions = {
  o: () => decide("OK", ""), n: openKinds, s: () => { if (!still()) { say(""); next(); } }, u: () => still() || undo(), c: confirmShown,
  v: () => { view = view === "overlay" ? "picture" : "overlay"; if (shown) drawPicture(); },
  b: () => { at("boxes").style.display = toggle(at("mark"), !pressed(at("mark"))) ? "" : "none"; },
  z: () => { at("stage").classList.toggle("actual", toggle(at("zoom"), !pressed(at("zoom")))); fit(); },
  "/": () => at("noting").hidden || at("note").focus(),
  j: () => move(1), k: () => move(-1), arrowdown: () => move(1), arrowup: () => move(-1),
};

function move(by) {
  const rows = items.filter((item) => inFilter(item) || (shown && item.id === shown.id));
  const here = shown ? rows.findIndex((item) => item.id === shown.id) : -1;
  const to = rows[Math.min(rows.length - 1, Math.max(0, here + by))];
  if (!to || busy) return;
  say("");
  show(to.id).then(() => at("list").querySelector("[aria-current]")?.scrollIntoView({block: "nearest"}));
}

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (at("kind").open) {
    const button = at("types").children[Number(event.key) - 1];
    if (/^[1-9]$/.test(event.key) && button && !at("other").value) {
      event.preventDefault();
      decideKind(button.dataset.kind);
    }
    return;
  }
  if (/^(INPUT|TEXTAREA)$/.test(event.target.tagName)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const action = actions[event.key.toLowerCase()];
  if (action && !event.repeat) {
    event.preventDefault();
    action();
  }
});
for (const [id, key] of Object.entries({ok: "o", ng: "n", skip: "s", undo: "u", confirm: "c", view: "v", mark: "b", zoom: "z"})) at(id).addEventListener("click", () => actions[key]());
at("types").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) decideKind(button.dataset.kind);
});
at("kind-form").addEventListener("submit", (event) => {
  event.preventDefault();
  decideKind(at("other").value);
});
at("cancel").addEventListener("click", () => at("kind").close());
at("list").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button || busy) return;
  say("");
  show(button.dataset.id);
});
document.querySelector(".filters").addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (!button) return;
  filter = button.dataset.filter;
  for (const other of document.querySelectorAll(".filters button")) toggle(other, other === button);
  drawList();
});

function arrived() {
  pictured = at("picture").dataset.id;
  setButtons();
}

at("picture").addEventListener("load", () => {
  arrived();
  at("frame").hidden = false;
  at("missing").hidden = true;
  fit();
});
at("picture").addEventListener("error", async () => {
  if (!shown || !at("picture").getAttribute("src")) return;
  if (shown.map && view === "overlay") {
    view = "picture";
    say("The map cannot be shown.", true);
    drawPicture();
    return;
  }
  arrived();
  at("frame").hidden = true;
  at("missing").hidden = false;
  at("missing").textContent = "The picture cannot be shown.";
  try {
    await ask("picture/" + encodeURIComponent(shown.id));
  } catch (error) {
    at("missing").textContent = error.message;
  }
});
addEventListener("resize", fit);
document.addEventListener("visibilitychange", async () => {
  if (document.hidden || busy) return;
  try {
    await load();
    if (shown) await show(shown.id);
  } catch (error) {
    say(error.message, true);
  }
});
(async () => {
  try {
    await load();
    await next();
  } catch (error) {
    say(error.message, true);
  }
})();
