// The gallery: only the cells in sight exist, whatever the audit's size.
const CELL_PX = 172, GAP_PX = 12, CAPTION_PX = 52;
const scroller = byId("scroller"), grid = byId("grid");
const cells = new Map(); // place in the order -> element
let columns = 1, wide_px = CELL_PX, high_px = CELL_PX + CAPTION_PX, waiting = false;

function said_of(row) {
  const kind = word("type", row), wrong = col.agree[row];
  return [VERDICTS[col.v[row]], basename(row), kind && spoken(kind), col.score[row] !== null && `score ${number(col.score[row])} against ${number(col.limit[row])}`,
    word("error", row) && `not inspected: ${word("error", row)}`, wrong >= 0 && wrong < 3 && `${LABELS[wrong]}: expected ${word("label", row)}`].filter(Boolean).join(", ");
}
function make_cell(place) {
  const row = order[place], kind = word("type", row), wrong = col.agree[row];
  const pic = el("div", { class: "pic" });
  const node = el("div", { class: "cell", role: "option", id: `cell-${row}`, "aria-label": said_of(row), "aria-setsize": order.length, "aria-posinset": place + 1, "aria-selected": place === state.at ? "true" : "false" },
    pic,
    el("div", { class: "cap" }, badge(row), el("span", { class: "kind" }, word("error", row) ? spoken(word("error", row)) : kind ? spoken(kind) : ""),
      el("span", { class: "score" }, col.score[row] === null ? "" : number(col.score[row])),
      el("bdi", { class: "name", title: col.name[row] }, basename(row)), wrong >= 0 && wrong < 3 ? el("span", { class: "wrong" }, LABELS[wrong]) : null));
  node.addEventListener("click", () => { select(place); open_part(row); });
  show_picture(pic, row);
  return node;
}
// A faint spot on a good part unsettles and means nothing: the maps of OK parts are in their own view only.
const marks = (row, found) => (VERDICTS[col.v[row]] === "OK" ? null : found.map);
function show_picture(pic, row) {
  const found = small(row);
  if (!found) { waiting = true; return; }
  if (found.thumbnail) pic.append(el("img", { src: found.thumbnail, alt: `Picture ${basename(row)}`, decoding: "async", draggable: "false" }));
  else pic.append(el("span", { class: "gone" }, "no picture kept"));
  if (found.thumbnail && state.maps && marks(row, found)) pic.append(el("img", { src: found.map, alt: "", class: "heat", decoding: "async", draggable: "false" }));
}
function measure() {
  const width = scroller.clientWidth - 40;
  columns = Math.max(1, Math.floor((width + GAP_PX) / (CELL_PX + GAP_PX)));
  wide_px = Math.floor((width - GAP_PX * (columns - 1)) / columns);
  high_px = wide_px + CAPTION_PX; // a square for the picture, whatever its shape
  grid.style.height = `${Math.ceil(order.length / columns) * (high_px + GAP_PX)}px`;
}
function paint() {
  if (state.view !== "pictures") return;
  const row_px = high_px + GAP_PX;
  const first = Math.max(0, (Math.floor(scroller.scrollTop / row_px) - 1) * columns);
  const last = Math.min(order.length, (Math.ceil((scroller.scrollTop + scroller.clientHeight) / row_px) + 1) * columns);
  for (const [place, node] of cells) if (place < first || place >= last) { node.remove(); cells.delete(place); }
  for (let place = first; place < last; place++) {
    if (cells.has(place)) continue;
    const node = make_cell(place);
    node.style.width = `${wide_px}px`;
    node.style.height = `${high_px}px`;
    node.style.transform = `translate(${(place % columns) * (wide_px + GAP_PX)}px, ${Math.floor(place / columns) * row_px}px)`;
    cells.set(place, node);
    grid.append(node);
  }
  const active = cells.get(state.at);
  if (active) scroller.setAttribute("aria-activedescendant", active.id);
  else scroller.removeAttribute("aria-activedescendant");
}
function repaint(to_top = false) {
  for (const node of cells.values()) node.remove();
  cells.clear();
  waiting = false;
  if (to_top) scroller.scrollTop = 0;
  measure();
  paint();
}
function select(place, show = true) {
  if (!order.length) return;
  const was = cells.get(state.at);
  state.at = Math.max(0, Math.min(order.length - 1, place));
  was?.setAttribute("aria-selected", "false");
  if (show) {
    const top = Math.floor(state.at / columns) * (high_px + GAP_PX), bottom = top + high_px + 8;
    if (top < scroller.scrollTop) scroller.scrollTop = top;
    else if (bottom > scroller.scrollTop + scroller.clientHeight) scroller.scrollTop = bottom - scroller.clientHeight;
  }
  paint();
  cells.get(state.at)?.setAttribute("aria-selected", "true");
}
function gallery_key(key) {
  const page = Math.max(1, Math.floor(scroller.clientHeight / (high_px + GAP_PX))) * columns;
  const steps = { ArrowRight: 1, ArrowLeft: -1, j: 1, k: -1, ArrowDown: columns, ArrowUp: -columns, PageDown: page, PageUp: -page, Home: -rows, End: rows };
  if (key === "Enter" || key === " ") { if (order.length) open_part(order[state.at]); return true; }
  if (!(key in steps)) return false;
  const target = state.at + steps[key];
  if (key === "ArrowUp" && target < 0) return true;
  select(key === "ArrowDown" && target >= order.length && Math.floor(state.at / columns) === Math.floor((order.length - 1) / columns) ? state.at : target);
  return true;
}

let planned = false;
scroller.addEventListener("scroll", () => {
  if (planned) return;
  planned = true;
  requestAnimationFrame(() => { planned = false; paint(); });
}, { passive: true });
new ResizeObserver(() => repaint()).observe(scroller);
// Thumbnails come later in the file than this script: fill those in sight as they arrive.
const arriving = setInterval(() => { if (waiting) repaint(); }, 150);
document.addEventListener("DOMContentLoaded", () => { clearInterval(arriving); if (waiting) repaint(); });
