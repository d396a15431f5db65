// The filters beside the pictures, the verdicts above them, and the chips that say what is in force.
const SHOWN = 8;
const unfolded = new Set();

function toggle(facet, value, only = false) {
  const chosen = state[facet];
  if (only) {
    const alone = chosen.size === 1 && chosen.has(value);
    chosen.clear();
    if (!alone) chosen.add(value);
  } else if (!chosen.delete(value)) chosen.add(value);
  refresh(true);
}
const facet_name = (facet, value) => (value < 0 ? facet.none : facet.say ? facet.say(facet.names[value]) : facet.names[value]);

function show_facets() {
  const focused = document.activeElement?.dataset?.facet;
  const made = [];
  for (const facet of FACETS) {
    const present = col[facet.of].some((value) => value >= 0);
    if (facet.key === "v" || !present || (facet.key === "product" && one_product)) continue;
    const tally = counts[facet.key], chosen = state[facet.key];
    const all = facet.names.map((_, index) => index);
    if (facet.none && (tally.get(-1) || chosen.has(-1))) all.push(-1);
    if (facet.key !== "label") all.sort((a, b) => (a < 0) - (b < 0) || (tally.get(b) ?? 0) - (tally.get(a) ?? 0));
    const whole = unfolded.has(facet.key) ? 400 : SHOWN;
    const shown = all.filter((value, place) => place < whole || chosen.has(value)).filter((value) => facet.key !== "label" || tally.get(value) || chosen.has(value));
    const box = el("fieldset", { class: "facet", id: `facet-${facet.key}` }, el("legend", null, facet.title));
    for (const value of shown) {
      const input = el("input", { type: "checkbox", "data-facet": `${facet.key} ${value}`, onchange: () => toggle(facet.key, value) });
      input.checked = chosen.has(value);
      const name = facet_name(facet, value);
      box.append(el("label", { class: value < 0 ? "value none" : "value", title: name }, input, el("span", { dir: "auto" }, name), el("small", null, (tally.get(value) ?? 0).toLocaleString("en"))));
    }
    if (all.length > SHOWN && facet.key !== "label") {
      const open = unfolded.has(facet.key);
      box.append(el("button", { type: "button", class: "more", "aria-expanded": open ? "true" : "false", "data-facet": `${facet.key} more`,
        onclick: () => { if (!unfolded.delete(facet.key)) unfolded.add(facet.key); show_facets(); } }, open ? "Fewer" : `All ${all.length}`));
    }
    made.push(box);
  }
  byId("facets").replaceChildren(...made);
  if (focused) [...document.querySelectorAll("[data-facet]")].find((node) => node.dataset.facet === focused)?.focus();
}

function show_tiles() {
  const tally = counts.v, whole = VERDICTS.map((_, value) => tally.get(value) ?? 0), sum = whole.reduce((a, b) => a + b, 0);
  const said = ["defective", "a person must look", "good"];
  const failed = order.reduce((count, row) => count + (col.error[row] >= 0), 0), focused = document.activeElement?.dataset?.tile;
  byId("tiles").replaceChildren(...VERDICTS.map((name, value) =>
    el("button", { type: "button", class: `tile ${name.toLowerCase()}`, "data-tile": name, "aria-pressed": state.v.has(value) ? "true" : "false", "aria-keyshortcuts": String(value + 1), title: `${name}: ${said[value]}. Click to show only these, again for all.`, onclick: () => toggle("v", value, true) },
      el("b", null, whole[value].toLocaleString("en")), el("span", null, name), el("small", null, name === "REVIEW" && failed ? `${failed.toLocaleString("en")} not inspected` : sum ? `${percent(whole[value] / sum)} of these` : "none"))));
  if (focused) document.querySelector(`[data-tile="${focused}"]`)?.focus();
}

function show_chips() {
  const chips = [];
  const add = (text, drop) => chips.push(el("button", { type: "button", class: "chip", title: `Drop this filter: ${text}`, onclick: () => { drop(); refresh(true); } }, el("span", { dir: "auto" }, text), el("i", { "aria-hidden": "true" }, "×")));
  for (const facet of FACETS) for (const value of state[facet.key]) add(`${facet.title}: ${facet_name(facet, value)}`, () => state[facet.key].delete(value));
  if (state.lo !== null || state.hi !== null) add(`${level_name}: ${state.lo ?? "…"} to ${state.hi ?? "…"}`, () => { state.lo = state.hi = null; });
  if (state.q) add(`Search: ${state.q}`, () => { state.q = ""; byId("search").value = ""; });
  if (chips.length > 1) chips.push(el("button", { type: "button", class: "chip all", onclick: clear_filters }, "Clear all"));
  byId("chips").replaceChildren(...chips);
}
function clear_filters() {
  for (const facet of FACETS) state[facet.key].clear();
  Object.assign(state, { q: "", lo: null, hi: null });
  refresh(true);
}
const level_name = one_product ? "Score" : "Score ÷ threshold";

function show_order() {
  const options = Object.entries(ORDERS).filter(([key]) => key === "order" || key === "name" || Array.prototype.some.call(col.n, (_, row) => ORDERS[key][1](row) !== null));
  if (!byId("sort").options.length) byId("sort").append(...options.map(([key, [name]]) => el("option", { value: key }, name)));
  byId("sort").value = state.sort;
  byId("direction").textContent = state.down ? "Falling" : "Rising";
  byId("direction").setAttribute("aria-pressed", state.down ? "true" : "false");
  byId("direction").setAttribute("aria-label", state.down ? "Order: falling" : "Order: rising");
  byId("maps").checked = state.maps;
  for (const end of ["lo", "hi"]) if (document.activeElement !== byId(end)) byId(end).value = state[end] ?? "";
  if (document.activeElement !== byId("search")) byId("search").value = state.q;
  byId("order").hidden = state.view !== "pictures";
  byId("rangeunit").textContent = one_product ? "In the product's own unit; higher is more anomalous." : "Products differ in unit, so each score counts in thresholds.";
}
