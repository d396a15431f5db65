// Figures of the filtered pictures. Every chart has its numbers as a table below it.
// Drawn in the pixels they are shown in, so that every text has the size of the page's.
const PAPER_PX = 700;
const chart_px = (whole = false) => {
  const room = byId("figures").clientWidth - 40, two = room >= 976;
  return Math.max(340, room <= 0 ? PAPER_PX : Math.floor(whole || !two ? room : (room - 16) / 2) - 38);
};
const shorten = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}…` : text);
const card = (title, said, ...children) => el("section", { class: "card" }, el("h2", null, title), said ? el("p", null, said) : null, ...children);
const as_table = (...given) => el("details", null, el("summary", null, "As a table"), table(...given));
const legend = (...names) => el("p", { class: "legend" }, names.map(([kind, name]) => el("span", { class: kind }, name)));
const chart = (wide_px, high_px, label, ...children) => svg("svg", { viewBox: `0 0 ${wide_px} ${high_px}`, role: "img", "aria-label": label }, ...children);
const text_at = (x, y, text, given = {}) => svg("text", { x, y, ...given }, text);

function ticks(low, high, about) {
  const rough = (high - low) / about || 1, unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * unit).find((value) => value >= rough);
  const found = [];
  for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + 1e-9 * step; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

function histogram() {
  const scored = order.filter((row) => level(row) !== null);
  if (!scored.length) return card("Decisions", "None of these pictures has a score.");
  const values = scored.map(level).sort((a, b) => a - b);
  const limits = one_product ? [...new Set(scored.map((row) => col.limit[row]).filter((value) => value !== null))] : [1];
  const cap = Math.max(values[Math.min(values.length - 1, Math.floor(0.995 * values.length))], ...limits) * 1.0001;
  const low = Math.min(values[0], ...limits), span = cap - low || 1, marks = ticks(low - 0.02 * span, cap + 0.02 * span, 40);
  const step = marks.length > 1 ? marks[1] - marks[0] : 1, start = marks[0] - step, bins = marks.length + 1;
  const heights = Array.from({ length: bins }, () => [0, 0, 0]);
  let beyond = 0;
  for (const row of scored) {
    const at = Math.floor((level(row) - start) / step + 1e-9);
    if (at >= bins) beyond++;
    heights[Math.max(0, Math.min(bins - 1, at))][col.v[row]]++;
  }
  const wide_px = chart_px(true), high = 280, left = 42, right = wide_px - 12, floor = high - 40, top = 26, most = Math.max(...heights.map((each) => each[0] + each[1] + each[2]));
  const x = (value) => left + ((value - start) / (bins * step)) * (right - left), y = (count) => floor - (count / most) * (floor - top);
  const parts = ticks(0, most, 4).filter(Number.isInteger).flatMap((count) => [svg("line", { class: "axis", x1: left, x2: right, y1: y(count), y2: y(count) }), text_at(left - 8, y(count) + 4, count.toLocaleString("en"), { "text-anchor": "end" })]);
  for (let bin = 0; bin < bins; bin++) {
    let base = 0;
    const from = Number((start + bin * step).toPrecision(9)), to = bin === bins - 1 ? null : Number((start + (bin + 1) * step).toPrecision(9)), wide = Math.max(1, x(start + step) - x(start) - 1);
    for (const verdict of [2, 1, 0]) {
      const count = heights[bin][verdict];
      if (count) parts.push(svg("rect", { class: VERDICTS[verdict].toLowerCase(), x: x(from) + 0.5, width: wide, y: y(base + count), height: y(base) - y(base + count) }));
      base += count;
    }
    parts.push(svg("rect", { class: "pick", x: x(from), width: wide + 1, y: top, height: floor - top, onclick: () => { Object.assign(state, { lo: bin ? from : null, hi: to, view: "pictures" }); refresh(true); } },
      svg("title", null, `${number(from)} to ${to === null ? "the highest" : number(to)}: ${many(base, "picture")}. Click to see them.`)));
  }
  limits.sort((a, b) => a - b);
  for (const limit of limits.slice(0, 6)) parts.push(svg("line", { class: "limit", x1: x(limit), x2: x(limit), y1: top - 8, y2: floor }));
  const named = limits.length > 1 ? `thresholds ${number(limits[0])} to ${number(limits.at(-1))}` : one_product ? `threshold ${number(limits[0])}` : "threshold";
  if (limits.length) parts.push(text_at(x(limits.at(-1)), top - 13, named, { "text-anchor": x(limits.at(-1)) > wide_px - 80 ? "end" : "middle", class: "strong" }));
  for (const tick of ticks(start, start + bins * step, 8)) parts.push(text_at(x(tick), floor + 17, number(tick), { "text-anchor": "middle" }));
  parts.push(text_at((left + right) / 2, high - 4, level_name, { "text-anchor": "middle" }));
  const made = card("Decisions", [`${many(scored.length, "score")} of ${many(order.length, "picture")}${beyond ? `; the last bar holds ${beyond.toLocaleString("en")} beyond the axis` : ""}.`, el("span", { class: "screen" }, " Click a bar to see its pictures.")],
    chart(wide_px, high, `Histogram of ${level_name.toLowerCase()} by verdict, threshold ${limits.map((limit) => number(limit)).join(", ")}`, parts), legend(["ok", "OK"], ["review", "REVIEW"], ["ng", "NG"]),
    as_table([`${level_name} from`, "to", "OK", "REVIEW", "NG"], heights.map((each, bin) => [number(start + bin * step), bin === bins - 1 ? "…" : number(start + (bin + 1) * step), each[2], each[1], each[0]]), [0, 1, 2, 3, 4]));
  made.classList.add("wide");
  return made;
}

function pareto_rows() {
  const tally = new Map();
  for (const row of order) if (col.v[row] === 0) tally.set(col.type[row], (tally.get(col.type[row]) ?? 0) + 1);
  const named = (value) => (value < 0 ? "unknown" : words.type[value]);
  return [...tally].sort((a, b) => b[1] - a[1] || (named(a[0]) < named(b[0]) ? -1 : 1)).map(([value, count]) => ({ value, count, name: spoken(named(value)) }));
}
function pareto(whole) {
  const found = pareto_rows(), sum = found.reduce((total, each) => total + each.count, 0);
  if (!sum) return card("Defect types", "None of these pictures is NG.");
  const shown = found.slice(0, 11), rest = found.slice(11).reduce((total, each) => total + each.count, 0);
  if (rest) shown.push({ value: null, count: rest, name: `${found.length - 11} more` });
  const wide_px = chart_px(whole), slanted = shown.length > 5, high = slanted ? 300 : 250, left = 42, right = wide_px - 46, floor = high - (slanted ? 84 : 34), top = 18;
  const x = (place) => left + ((place + 0.5) / shown.length) * (right - left), wide = Math.min(64, (0.7 * (right - left)) / shown.length), y = (share) => floor - share * (floor - top);
  const parts = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [svg("line", { class: "axis", x1: left, x2: right, y1: y(share), y2: y(share) }), text_at(right + 8, y(share) + 4, `${100 * share} %`), text_at(left - 8, y(share) + 4, Math.round(share * sum).toLocaleString("en"), { "text-anchor": "end" })]);
  let so_far = 0;
  const knots = shown.map((each, place) => {
    so_far += each.count;
    parts.push(svg("rect", { class: "plain", x: x(place) - wide / 2, width: wide, y: y(each.count / sum), height: floor - y(each.count / sum), rx: 2 }));
    parts.push(text_at(x(place), floor + 16, shorten(each.name, slanted ? 20 : 22), slanted ? { "text-anchor": "end", transform: `rotate(-32 ${x(place)} ${floor + 16})`, class: "strong" } : { "text-anchor": "middle", class: "strong" }));
    if (each.value !== null) parts.push(svg("rect", { class: "pick", x: x(place) - wide / 2 - 4, width: wide + 8, y: top, height: floor - top, onclick: () => show_only("type", each.value) }, svg("title", null, `${each.name}: ${each.count} NG. Click to see them.`)));
    return [x(place), y(so_far / sum)];
  });
  parts.push(svg("polyline", { class: "curve", points: knots.map((knot) => knot.join(",")).join(" ") }), knots.map(([cx, cy]) => svg("circle", { class: "knot", cx, cy, r: 3.5 })));
  so_far = 0;
  const made = card("Defect types", `Pareto of ${many(sum, "NG picture")}; the line adds them up.`, chart(wide_px, high, `Pareto chart of defect types: ${shown.slice(0, 3).map((each) => `${each.name} ${each.count}`).join(", ")}`, parts),
    as_table(["Type", "NG", "Share", "So far"], found.map((each) => [each.name, each.count, percent(each.count / sum), percent((so_far += each.count) / sum)]), [1, 2, 3]));
  made.classList.toggle("wide", whole);
  return made;
}
function show_only(facet, value) {
  state[facet] = new Set([value]);
  if (facet === "type") state.v = new Set([0]);
  state.view = "pictures";
  refresh(true);
}

// Exact interval of a share (Clopper and Pearson 1934), by bisection on the binomial's tail.
function log_choose(of, count) {
  let sum = 0;
  for (let k = 1; k <= count; k++) sum += Math.log((of - count + k) / k);
  return sum;
}
function tail(count, of, share) { // P(X >= count)
  if (count <= 0) return 1;
  if (share <= 0) return 0;
  if (share >= 1) return 1;
  const upper = count > of * share; // add up the shorter tail
  let at = upper ? count : count - 1, term = Math.exp(log_choose(of, Math.min(at, of - at)) + at * Math.log(share) + (of - at) * Math.log1p(-share)), sum = 0;
  const odds = share / (1 - share);
  while (at >= 0 && at <= of && term > 1e-18 * sum) {
    sum += term;
    if (upper) { term *= (odds * (of - at)) / (at + 1); at++; } else { term *= at / (odds * (of - at + 1)); at--; }
  }
  return upper ? sum : 1 - sum;
}
function interval(count, of) {
  if (!of) return [0, 1];
  const solve = (reached) => {
    let low = 0, high = 1;
    for (let turn = 0; turn < 40; turn++) { const middle = (low + high) / 2; if (reached(middle)) high = middle; else low = middle; }
    return (low + high) / 2;
  };
  return [count === 0 ? 0 : solve((share) => tail(count, of, share) >= 0.025), count === of ? 1 : solve((share) => tail(count + 1, of, share) >= 0.975)];
}

function rates(facet, title) {
  const groups = new Map();
  for (const row of order) {
    if (col.error[row] >= 0) continue;
    const key = col[facet][row], found = groups.get(key) ?? { count: 0, of: 0, review: 0 };
    found.of++;
    found.count += col.v[row] === 0;
    found.review += col.v[row] === 1;
    groups.set(key, found);
  }
  if (groups.size < 2) return null;
  const all = [...groups].map(([value, each]) => ({ value, ...each, name: value < 0 ? "none" : words[facet][value] })).sort((a, b) => b.count / b.of - a.count / a.of || b.of - a.of);
  const shown = all.slice(0, 20).map((each) => ({ ...each, ends: interval(each.count, each.of) }));
  const wide_px = chart_px(), line = 24, left = 150, right = wide_px - 120, high = 24 + shown.length * line + 22, top = Math.min(1, Math.max(...shown.map((each) => each.ends[1])) * 1.05);
  const x = (share) => left + (share / top) * (right - left), parts = [];
  for (const tick of ticks(0, top, 5)) parts.push(svg("line", { class: "axis", x1: x(tick), x2: x(tick), y1: 8, y2: high - 24 }), text_at(x(tick), high - 6, `${Number((100 * tick).toPrecision(4))} %`, { "text-anchor": "middle" }));
  shown.forEach((each, place) => {
    const y = 22 + place * line;
    parts.push(text_at(left - 12, y + 4, shorten(each.name, 20), { "text-anchor": "end", class: "strong" }), svg("line", { class: "span", x1: x(each.ends[0]), x2: x(each.ends[1]), y1: y, y2: y }), svg("circle", { class: "ng", cx: x(each.count / each.of), cy: y, r: 5 }),
      text_at(wide_px - 8, y + 4, `${percent(each.count / each.of)} of ${each.of.toLocaleString("en")}`, { "text-anchor": "end" }),
      svg("rect", { class: "pick", x: 0, width: wide_px, y: y - line / 2, height: line, onclick: () => { state[facet] = new Set([each.value]); refresh(true); } }, svg("title", null, `${each.name}: ${each.count} NG of ${each.of}. Click to keep only these.`)));
  });
  return card(title, `NG share of the inspected pictures, with its exact 95 % interval${all.length > shown.length ? `; the worst ${shown.length} of ${all.length}` : ""}.`, chart(wide_px, high, `${title}: the highest is ${shown[0].name} with ${percent(shown[0].count / shown[0].of)}`, parts),
    as_table([title, "Pictures", "NG", "REVIEW", "NG share", "95 % from", "to"], all.slice(0, 200).map((each) => { const [from, to] = interval(each.count, each.of); return [each.name, each.of, each.count, each.review, percent(each.count / each.of), percent(from), percent(to)]; }), [1, 2, 3, 4, 5, 6]));
}

function labelled() {
  const known = order.filter((row) => col.x[row]);
  if (!known.length) return null;
  const cells = [0, 1].map((expected) => [2, 1, 0, -1].map((verdict) => known.filter((row) => col.x[row] === expected + 1 && (verdict < 0 ? col.error[row] >= 0 : col.v[row] === verdict && col.error[row] < 0)).length));
  const jump = (count, expected, verdict, bad) => (count ? el("button", { type: "button", class: bad ? "link bad" : "link", title: "See them", onclick: () => {
    state.label = new Set(verdict === 1 ? [3] : verdict === 2 ? [expected ? 0 : 5] : expected ? [2, 4, 5] : [1]);
    state.v = new Set([verdict]);
    state.view = "pictures";
    refresh(true);
  } }, count.toLocaleString("en")) : "0");
  const line = (expected, name) => {
    const [ok, review, ng, failed] = cells[expected], judged = ok + review + ng, wrong = expected ? ok : ng, [from, to] = interval(wrong, judged);
    return [name, jump(ok, expected, 2, expected), jump(review, expected, 1), jump(ng, expected, 0, !expected), String(failed), judged ? `${percent(wrong / judged)} (${percent(from)} to ${percent(to)})` : "–"];
  };
  const made = card("Against the labels", `${many(known.length, "picture")} with a label. An escape is a defective part called OK, overkill a good part called NG; REVIEW is neither. Shares with exact 95 % intervals.`,
    table(["Labelled", "OK", "REVIEW", "NG", "Not inspected", "Escapes, overkill"], [line(1, "defective"), line(0, "good")], [1, 2, 3, 4, 5]));
  made.classList.add("wide");
  return made;
}

function drift(found) {
  const name = found.product ?? "no product", tested = found.batches.filter((batch) => batch.quartiles);
  const title = audit.drift.length > 1 ? `Drift: ${name}` : "Drift";
  if (!tested.length || !found.quartiles) {
    const untested = card(title, found.reason ? `Not tested: ${found.reason}.` : "No batch has a score.");
    untested.classList.add("wide");
    return untested;
  }
  const shown = tested.slice(-60), wide_px = chart_px(true), high = 250, left = 42, right = wide_px - 12, top = 16, floor = high - 40;
  const ends = [...found.quartiles, ...shown.flatMap((batch) => batch.quartiles)], room = 0.15 * (Math.max(...ends) - Math.min(...ends) || 1), least = Math.min(...ends) - room, most = Math.max(...ends) + room;
  const x = (place) => left + ((place + 0.5) / shown.length) * (right - left), y = (value) => floor - ((value - least) / (most - least)) * (floor - top);
  const parts = ticks(least, most, 5).flatMap((tick) => [svg("line", { class: "axis", x1: left, x2: right, y1: y(tick), y2: y(tick) }), text_at(left - 8, y(tick) + 4, number(tick), { "text-anchor": "end" })]);
  parts.push(svg("rect", { class: "band", x: left, width: right - left, y: y(found.quartiles[2]), height: Math.max(1, y(found.quartiles[0]) - y(found.quartiles[2])) }), svg("line", { class: "median", x1: left, x2: right, y1: y(found.quartiles[1]), y2: y(found.quartiles[1]) }));
  const called = (batch) => [batch.lot, batch.station].filter(Boolean).join(", ") || `from ${batch.first_line}`, every = Math.ceil((shown.length * 110) / (right - left));
  shown.forEach((batch, place) => {
    const kind = batch.alarm ? "ng" : batch.alarm === false ? "ok" : "review";
    parts.push(svg("line", { class: "span", x1: x(place), x2: x(place), y1: y(batch.quartiles[0]), y2: y(batch.quartiles[2]) }),
      batch.alarm ? svg("path", { class: kind, d: `M${x(place) - 7} ${y(batch.quartiles[1]) + 6}h14l-7-13z` }) : svg("circle", { class: kind, cx: x(place), cy: y(batch.quartiles[1]), r: 5 }));
    if (place % every === 0) parts.push(text_at(x(place), floor + 17, shorten(called(batch), 14), { "text-anchor": "middle" }));
  });
  parts.push(text_at((left + right) / 2, high - 3, "Batch", { "text-anchor": "middle" }));
  const alarms = found.batches.filter((batch) => batch.alarm);
  const made = card(title, `${found.alarm ? `${many(alarms.length, "batch alarms", "batches alarm")}: scores are no longer those of the enrolment, first in ${called(alarms[0])}.` : found.alarm === false ? "No batch alarms." : `Not tested: ${found.reason}.`} Scores of the whole picture in spreads of the ${found.references} references; false-alarm level ${percent(found.level)} for all batches together. The whole audit, whatever the filters${tested.length > shown.length ? `; the last ${shown.length} of ${tested.length} batches` : ""}.`,
    chart(wide_px, high, `Scores by batch against enrolment: ${found.alarm ? "alarm" : "no alarm"}`, parts), legend(["band", "References: quartiles"], ["median", "References: median"], ["ok", "Batch: quartiles and median"], ["ng", "Alarm (triangle)"], ["review", "Too few to test"]),
    as_table(["Batch", "Parts", "Left out", "Median", "p-value", "Alarms at", "Alarm"], found.batches.slice(0, 400).map((batch) => [called(batch), batch.parts, batch.left_out, batch.quartiles ? number(batch.quartiles[1]) : "–", number(batch.p_value), number(batch.level), batch.alarm === null ? "not tested" : batch.alarm ? "yes" : "no"]), [1, 2, 3, 4, 5]));
  made.classList.add("wide");
  if (found.alarm !== null) made.classList.add(found.alarm ? "alarm" : "calm");
  return made;
}

function make_figures() {
  const groups = [rates("lot", "Lot"), rates("station", "Station"), one_product ? null : rates("product", "Product")].filter(Boolean);
  return [histogram(), labelled(), pareto(groups.length % 2 === 0), ...groups, ...audit.drift.map(drift)].filter(Boolean);
}
