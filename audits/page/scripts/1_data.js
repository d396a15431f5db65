// The audit's data: blocks of JSON in the page, each parsed when first needed.
const VERDICTS = ["NG", "REVIEW", "OK"];
const LABELS = ["Escape", "Overkill", "Other type", "Undecided", "Type not named", "Agrees"];
const byId = (id) => document.getElementById(id);
const parsed = (id) => JSON.parse(byId(id).textContent);

const audit = parsed("audit");
const rows = audit.count;
const col = {};
for (let start = 0; start < rows; start += audit.chunks.rows) {
  const part = parsed(`rows-${start / audit.chunks.rows}`);
  for (const name in part) (col[name] ??= []).push(...part[name]);
}
if (!rows) for (const name of audit.columns) col[name] = [];
const words = audit.words;
const word = (column, row) => (col[column][row] < 0 ? "" : words[column][col[column][row]]);
const one_product = words.product.length <= 1;
const plain = (text) => text.trim().toLowerCase().replaceAll("-", "_").split(/\s+/).join("_");
const spoken = (type) => type.replaceAll("_", " ");
const basename = (row) => col.name[row].slice(col.name[row].lastIndexOf("/") + 1) || col.name[row];

// How far from its limit: products differ in the unit of their scores, so only ratios compare between them.
const ratio = (row) => (col.score[row] === null || !col.limit[row] ? null : col.score[row] / col.limit[row]);
const level = one_product ? (row) => col.score[row] : ratio;

col.agree = Array.from({ length: rows }, (_, row) => {
  const expected = col.x[row], verdict = VERDICTS[col.v[row]];
  if (!expected) return -1;
  if (verdict === "REVIEW") return 3;
  if (expected === 2 && verdict === "OK") return 0;
  if (expected === 1 && verdict === "NG") return 1;
  const wanted = word("wanted", row), found = plain(word("type", row));
  if (expected === 1 || !wanted || found === wanted) return 5;
  return found === "" || found === "unknown" ? 4 : 2;
});

// --- blocks that come later in the file ---------------------------------------------------------------------------
const BLOCKS_KEPT = 64; // more than the cells in sight, which in the order of scores lie in as many blocks
const kept = new Map();
function block(id, read) {
  if (kept.has(id)) return kept.get(id);
  const node = byId(id);
  // A block that is still being received ends where the next one begins.
  if (!node || (document.readyState === "loading" && !node.nextElementSibling)) return null;
  const value = read(node.textContent);
  kept.set(id, value);
  if (kept.size > BLOCKS_KEPT) kept.delete(kept.keys().next().value);
  return value;
}
const image = (base64) => (base64 ? `data:image/webp;base64,${base64}` : null);

// {thumbnail, map}: null while the file is still being received; each null where there is none, map "" when empty.
function small(row) {
  const chunk = block(`small-${Math.floor(row / audit.chunks.small)}`, JSON.parse);
  if (!chunk) return null;
  const [thumbnail, map] = chunk[row % audit.chunks.small];
  return { thumbnail: image(thumbnail), map: map === "" ? "" : image(map) };
}
const large = (row) => image(block(`large-${row}`, (text) => text.trim()));

async function inflated(text) {
  const bytes = Uint8Array.from(atob(text.trim()), (char) => char.charCodeAt(0));
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"))).json();
}
async function received() {
  if (document.readyState !== "loading") return;
  await new Promise((resolve) => document.addEventListener("DOMContentLoaded", resolve, { once: true }));
}
async function detail(row) {
  const id = `detail-${Math.floor(row / audit.chunks.detail)}`;
  let chunk = block(id, inflated);
  if (!chunk) {
    await received();
    chunk = block(id, inflated);
  }
  return (await chunk)[row % audit.chunks.detail];
}

// --- making elements: text is only ever set as text ----------------------------------------------------------------
const SVG = "http://www.w3.org/2000/svg";
function fill(node, given, children) {
  for (const [name, value] of Object.entries(given ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}
const el = (tag, given, ...children) => fill(document.createElement(tag), given, children);
const svg = (tag, given, ...children) => fill(document.createElementNS(SVG, tag), given, children);
const badge = (row, more = "") => el("span", { class: `badge ${VERDICTS[col.v[row]].toLowerCase()}${more}` }, VERDICTS[col.v[row]]);
const number = (value, digits = 3) => (value === null || value === undefined ? "–" : Math.abs(value) >= 1e5 ? value.toExponential(2) : String(Number(value.toPrecision(digits))));
const chance = (share) => (share < 0.001 ? "< 0.1 %" : share > 0.999 ? "> 99.9 %" : percent(share));
const percent = (share, digits = 1) => `${(100 * share).toFixed(digits)} %`;
const many = (count, one, more = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : more}`;
function table(heads, body, numeric = []) {
  const side = (index) => (numeric.includes(index) ? "n" : null);
  return el("table", null,
    el("thead", null, el("tr", null, heads.map((head, index) => el("th", { scope: "col", class: side(index) }, head)))),
    el("tbody", null, body.map((line) => el("tr", null, line.map((cell, index) => el("td", { class: side(index) }, cell ?? "–"))))));
}
