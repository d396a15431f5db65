// The report of one part: sentences with their citations, the evidence behind them, and what led to the verdict.
const FIELDS = { description: "What", location: "Where", defect_type: "Type", root_cause: "Likely cause", consequence: "Consequence", action: "What to do" };
const KINDS = { measurement: "Measurement", region: "Region", type: "Type comparison", document: "Document", zoom: "Zoom", reference: "Good reference", consistency: "Self-consistency", quality: "Picture quality", person: "A person", knowledge: "Knowledge", refutation: "Attempt to refute", check: "Check", plan: "Control plan" };
let pinned = [];

function sentence([, text, ids]) {
  const node = el("button", { type: "button", class: "said", "aria-pressed": "false", "data-ids": ids.join(" ") }, el("span", { dir: "auto" }, text), ids.map((id) => el("span", { class: "cite" }, id)));
  const hint = () => { if (!pinned.length) light(ids); };
  node.addEventListener("mouseenter", hint);
  node.addEventListener("focus", hint);
  node.addEventListener("mouseleave", () => light(pinned));
  node.addEventListener("blur", () => light(pinned));
  node.addEventListener("click", () => {
    const on = node.getAttribute("aria-pressed") === "true";
    for (const other of byId("report").querySelectorAll(".said")) other.setAttribute("aria-pressed", "false");
    node.setAttribute("aria-pressed", on ? "false" : "true");
    pinned = on ? [] : ids;
    light(pinned);
    if (!on) byId("report").querySelector(".evidence.lit")?.scrollIntoView({ block: "nearest" });
  });
  return node;
}
// Light up evidence, the regions it speaks of, and (from the evidence's side) the sentences that stand on it.
function light(ids, sentences = false) {
  const lit = new Set(ids);
  for (const node of byId("part").querySelectorAll(".evidence, .region")) node.classList.toggle("lit", lit.has(node.dataset.id));
  for (const node of byId("part").querySelectorAll(".said")) node.classList.toggle("lit", sentences && node.dataset.ids.split(" ").some((id) => lit.has(id)));
}

// A document is quoted line by line; what is written in it stays a quotation, whatever it says.
function quotation(text, whole) {
  const lines = text.replace(/^\[document [^\]]*\]\n?/, "").replace(/\n?\[end of document\]\s*$/, "").split("\n").map((line) => line.replace(/^> ?/, ""));
  const quote = el("blockquote", { dir: "auto", class: whole ? null : "short" });
  lines.forEach((line, place) => {
    const head = place === 0 ? null : /^([A-Z][A-Za-z ,]{2,40}): /.exec(line);
    quote.append(head ? el("p", null, el("b", null, head[0]), line.slice(head[0].length)) : el("p", null, place === 0 && lines.length > 1 ? el("b", null, line) : line));
  });
  return [quote, lines.length];
}
function evidence_card(item, cited, whole = false) {
  const node = el("div", { class: "evidence", "data-id": item.id, id: `evidence-${item.id}` },
    el("header", null, el("span", { class: "cite" }, item.id), el("b", null, KINDS[item.kind] ?? item.kind), el("span", { dir: "auto" }, item.kind === "document" ? item.source : ""), el("span", null, cited ? "" : "not cited")));
  if (item.kind === "document") {
    const [quote, lines] = quotation(item.text, whole);
    node.append(quote);
    if (!whole && lines > 3) {
      const more = el("button", { type: "button", class: "more", "aria-expanded": "false" }, "Whole page");
      more.addEventListener("click", () => {
        const short = quote.classList.toggle("short");
        more.setAttribute("aria-expanded", short ? "false" : "true");
        more.textContent = short ? "Whole page" : "Less";
      });
      node.append(more);
    }
  } else node.append(el("p", { dir: "auto" }, item.text));
  node.addEventListener("mouseenter", () => { if (!pinned.length) light([item.id], true); });
  node.addEventListener("mouseleave", () => light(pinned));
  return node;
}

function gauge(row) {
  const score = col.score[row], limit = col.limit[row];
  if (score === null || !limit) return null;
  const top = Math.max(2 * limit, 1.08 * score, 1e-9), share = (value) => `${Math.max(0, Math.min(100, (100 * value) / top))}%`;
  const fillbar = el("div", { class: "fill" }), at = el("div", { class: "at" }, el("span", null, `threshold ${number(limit)}`));
  fillbar.style.width = share(score);
  at.style.left = share(limit);
  return el("div", { class: `gauge ${VERDICTS[col.v[row]].toLowerCase()}`, role: "img", "aria-label": `Score ${number(score)}, threshold ${number(limit)}` }, el("div", { class: "track" }, fillbar), at);
}
function facts(pairs) {
  return el("dl", { class: "facts" }, pairs.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [el("dt", null, name), el("dd", { dir: "auto" }, value)]));
}
const section = (title, ...children) => el("section", null, el("h3", null, title), ...children);

function verdict_part(row, detail) {
  const wrong = col.agree[row], part = el("section", null);
  if (detail.error) part.append(el("p", { class: "lead" }, `Not inspected (${detail.error.kind}): ${detail.error.message}`));
  else if (detail.reason && !detail.claims.some((claim) => claim[0] === "verdict" && claim[1] === detail.reason)) part.append(el("p", { class: "lead", dir: "auto" }, detail.reason));
  const bar = gauge(row);
  if (bar) part.append(bar);
  const unsure = detail.uncertainty;
  part.append(facts([
    ["Score", col.score[row] === null ? null : `${number(col.score[row], 4)}${ratio(row) === null ? "" : `, ${number(ratio(row))} times the threshold`}`],
    ["Defect probability", col.p[row] === null ? null : chance(col.p[row])],
    ["Uncertainty", col.h[row] === null ? null : `${col.h[row] < 0.001 ? "< 0.001" : number(col.h[row])} of 1${unsure?.source ? `, from ${unsure.source}` : ""}`],
    ["Expected", word("label", row) ? `${word("label", row)}${wrong >= 0 ? ` (${LABELS[wrong].toLowerCase()})` : ""}` : null],
    ["Severity", detail.severity], ["Disposition", detail.disposition], ["Reaction", detail.reaction]]));
  return part;
}
function make_report(row, detail, whole = false) {
  const parts = [verdict_part(row, detail)];
  parts[0].prepend(...detail.claims.filter((claim) => claim[0] === "verdict").map(sentence));
  for (const [field, title] of Object.entries(FIELDS)) {
    const said = detail.claims.filter((claim) => claim[0] === field);
    if (said.length) parts.push(section(title, said.map(sentence)));
  }
  if (detail.candidates.length > 1) parts.push(section("Types compared", el("div", { class: "shares" }, detail.candidates.map(([name, share]) => {
    const bar = el("i", { "aria-hidden": "true" });
    bar.style.setProperty("--share", `${100 * share}%`);
    return [el("span", null, spoken(name)), bar, el("span", null, chance(share))];
  }))));
  if (detail.evidence.length) {
    const cited = new Set(detail.claims.flatMap((claim) => claim[2]));
    const sorted = [...detail.evidence].sort((a, b) => cited.has(b.id) - cited.has(a.id));
    parts.push(section("Evidence", sorted.map((item) => evidence_card(item, cited.has(item.id), whole))));
  }
  if (detail.trace.length) parts.push(section("Steps", table(["Step", "Found", "s"], detail.trace.map((step) => [spoken(step.action), step.note, number(step.seconds, 2)]), [2])));
  parts.push(section("Part", facts([["File", detail.path], ["Serial", col.serial[row]], ["Product", word("product", row)], ["Lot", word("lot", row)], ["Station", word("station", row)],
    ["Size", detail.size ? `${detail.size[0]} × ${detail.size[1]} px` : null], ["Remarks", detail.flags.map(spoken).join(", ")], ["Line", col.n[row]], ["Line of the manifest", detail.line],
    ["Conversation", detail.thread], ["Finished", detail.finished], ["SHA-256", detail.sha256], ["Settings", detail.settings], ["Record", detail.id]]),
    detail.href ? el("p", { class: "hint" }, el("a", { href: detail.href, target: "_blank", rel: "noreferrer noopener" }, "Open the picture's file")) : null));
  return parts;
}

let asked = 0;
async function open_part(row, step = true) {
  const turn = ++asked, dialog = byId("part"), was = state.open;
  state.open = row;
  const place = order.indexOf(row);
  if (place >= 0) select(place);
  write_address(step && was === null);
  byId("partverdict").replaceChildren(badge(row, " big"));
  byId("partname").replaceChildren(el("bdi", null, basename(row)));
  byId("partplace").textContent = place >= 0 ? `${(place + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}` : "Not among the filtered pictures";
  byId("previous").disabled = place <= 0;
  byId("next").disabled = place < 0 || place >= order.length - 1;
  if (!dialog.open) { dialog.showModal(); byId("partname").focus(); }
  const found = await detail(row);
  if (turn !== asked) return; // another one was opened meanwhile
  if (document.readyState === "loading" && !layers(row).picture) await received();
  if (turn !== asked) return;
  pinned = [];
  Object.assign(view, { row, detail: found, zoom: 1 });
  if (!view.moved) view.at = first_cut(found);
  byId("report").replaceChildren(...make_report(row, found));
  byId("report").scrollTop = 0;
  show_stage();
}
function move_part(by) {
  const place = order.indexOf(state.open) + by;
  if (order.includes(state.open) && place >= 0 && place < order.length) open_part(order[place]);
}
function close_part() {
  if (byId("part").open) byId("part").close();
}
byId("part").addEventListener("close", () => {
  asked++;
  state.open = null;
  Object.assign(view, { row: null, detail: null });
  byId("report").replaceChildren(); // the next part's facts take a moment; until then none stand there
  write_address();
  if (state.view === "pictures") { scroller.focus(); paint(); }
});
