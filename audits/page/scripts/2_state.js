// What is asked for: filters, order, view, opened picture. The page's address keeps all of it.
const FACETS = [
  { key: "v", title: "Verdict", of: "v", names: VERDICTS },
  { key: "label", title: "Against the label", of: "agree", names: LABELS, none: "No label" },
  { key: "type", title: "Defect type", of: "type", names: words.type, none: "None named", say: spoken },
  { key: "product", title: "Product", of: "product", names: words.product, none: "None" },
  { key: "lot", title: "Lot", of: "lot", names: words.lot, none: "No lot" },
  { key: "station", title: "Station", of: "station", names: words.station, none: "No station" },
  { key: "disposition", title: "Disposition", of: "disposition", names: words.disposition, none: "None" },
  { key: "failed", title: "Not inspected", of: "error", names: words.error, none: "Inspected" },
];
const ORDERS = {
  order: ["Worklist", (row) => col.n[row]],
  score: [one_product ? "Score" : "Score ÷ threshold", level],
  doubt: ["Uncertainty", (row) => col.h[row]],
  margin: ["Distance to the threshold", (row) => (ratio(row) === null ? null : Math.abs(Math.log(Math.max(ratio(row), 1e-9))))],
  verdict: ["Verdict", (row) => col.v[row]],
  type: ["Defect type", (row) => (col.type[row] < 0 ? null : type_rank[col.type[row]])],
  severity: ["Severity", (row) => col.sev[row]],
  name: ["Name", (row) => col.rank[row]],
  seconds: ["Seconds", (row) => col.s[row]],
};
const FALLING = new Set(["score", "doubt", "severity", "seconds"]);
const VIEWS = ["pictures", "figures", "about"];
const type_rank = words.type.map((_, index) => index).sort((a, b) => (words.type[a] < words.type[b] ? -1 : 1))
  .reduce((rank, index, place) => ((rank[index] = place), rank), []);

const state = { view: "pictures", q: "", sort: "order", down: false, lo: null, hi: null, open: null, at: 0, maps: true, theme: null };
for (const facet of FACETS) state[facet.key] = new Set();
let order = [];
let counts = {};

let hay = null;
function haystack() {
  hay ??= Array.from({ length: rows }, (_, row) =>
    [col.name[row], col.serial[row], VERDICTS[col.v[row]], spoken(word("type", row)), word("product", row), word("lot", row), word("station", row), word("label", row), word("error", row)].join("\n").toLowerCase());
  return hay;
}

// A row counts for a facet when it passes all others: the number beside a value is what ticking it would show.
function find() {
  const asked = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const texts = asked.length ? haystack() : null;
  const chosen = FACETS.map((facet) => (state[facet.key].size ? state[facet.key] : null));
  const tally = FACETS.map(() => new Map());
  const found = [];
  for (let row = 0; row < rows; row++) {
    if (texts && !asked.every((part) => texts[row].includes(part))) continue;
    if (state.lo !== null || state.hi !== null) {
      const value = level(row);
      if (value === null || (state.lo !== null && value < state.lo) || (state.hi !== null && value >= state.hi)) continue;
    }
    let failed = -1, failures = 0;
    for (let index = 0; index < FACETS.length; index++) {
      if (chosen[index] && !chosen[index].has(col[FACETS[index].of][row])) { failed = index; failures++; }
    }
    if (failures === 0) found.push(row);
    if (failures > 1) continue;
    for (let index = 0; index < FACETS.length; index++) {
      if (failures && index !== failed) continue;
      const value = col[FACETS[index].of][row];
      tally[index].set(value, (tally[index].get(value) ?? 0) + 1);
    }
  }
  const by = ORDERS[state.sort][1], way = state.down ? -1 : 1;
  const keys = new Map(found.map((row) => [row, by(row)]));
  found.sort((a, b) => {
    const x = keys.get(a), y = keys.get(b);
    if (x === y) return a - b;
    if (x === null) return 1; // what has no value stays last, whichever way
    if (y === null) return -1;
    return way * (x - y) || a - b;
  });
  order = found;
  counts = Object.fromEntries(FACETS.map((facet, index) => [facet.key, tally[index]]));
}

function address() {
  const said = new URLSearchParams();
  if (state.view !== "pictures") said.set("view", state.view);
  for (const facet of FACETS) for (const value of [...state[facet.key]].sort((a, b) => a - b)) said.append(facet.key, value < 0 ? "" : facet.names[value]);
  if (state.q) said.set("q", state.q);
  for (const end of ["lo", "hi"]) if (state[end] !== null) said.set(end, state[end]);
  if (state.sort !== "order") said.set("sort", state.sort);
  if (state.down !== FALLING.has(state.sort)) said.set("down", state.down ? "1" : "0");
  if (!state.maps) said.set("maps", "0");
  if (state.theme) said.set("theme", state.theme);
  if (state.open !== null) said.set("open", col.id[state.open]);
  return said.toString();
}
function read_address() {
  const said = new URLSearchParams(location.hash.slice(1));
  const one = (name) => said.get(name) ?? "";
  const real = (name) => (one(name) !== "" && Number.isFinite(Number(one(name))) ? Number(one(name)) : null);
  state.view = VIEWS.includes(one("view")) ? one("view") : "pictures";
  for (const facet of FACETS) {
    const wanted = said.getAll(facet.key).map((name) => (name === "" && facet.none ? -1 : facet.names.indexOf(name)));
    state[facet.key] = new Set(wanted.filter((value, place) => value >= 0 || said.getAll(facet.key)[place] === ""));
  }
  state.q = one("q").slice(0, 200);
  state.lo = real("lo");
  state.hi = real("hi");
  state.sort = Object.hasOwn(ORDERS, one("sort")) ? one("sort") : "order";
  state.down = said.has("down") ? one("down") === "1" : FALLING.has(state.sort);
  state.maps = one("maps") !== "0";
  state.theme = ["dark", "light"].includes(one("theme")) ? one("theme") : null;
  const open = said.has("open") ? col.id.indexOf(one("open")) : -1;
  state.open = open < 0 ? null : open;
}
function write_address(step = false) {
  const wanted = `#${address()}`;
  if (wanted === (location.hash || "#")) return;
  if (step) location.hash = wanted;
  else location.replace(wanted);
}
