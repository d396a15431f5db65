// What is printed: an opened part's report, or else the figures and a list of the filtered pictures.
const MOST_PRINTED = 200;
const paper = byId("paper");

function paper_part() {
  const { row, detail } = view, parts = layers(row);
  const figure = (map) => el("div", { class: "figure" }, el("img", { src: parts.picture, alt: picture_alt(row) }), map ? el("img", { src: map, alt: map_alt(row, detail) }) : null);
  return [el("h1", null, `${VERDICTS[col.v[row]]}: ${basename(row)}`), parts.picture ? el("div", { class: "pair" }, figure(null), parts.map ? figure(parts.map) : null) : null, ...make_report(row, detail, true)];
}
function paper_list() {
  const shown = order.slice(0, MOST_PRINTED);
  const lines = shown.map((row) => {
    const found = small(row);
    const pic = el("div", { class: "mini" }, found?.thumbnail ? el("img", { src: found.thumbnail, alt: "" }) : null, found?.thumbnail && marks(row, found) ? el("img", { src: found.map, alt: "" }) : null);
    return [pic, badge(row), basename(row), spoken(word("type", row) || word("error", row)), number(col.score[row]), [word("lot", row), word("station", row)].filter(Boolean).join(", "), word("label", row)];
  });
  const filters = [...document.querySelectorAll("#chips .chip:not(.all)")].map((chip) => chip.firstChild.textContent);
  return [el("h1", null, audit.title), el("p", null, `${audit.subtitle} ${filters.length ? `Filtered by ${filters.join("; ")}: ` : ""}${many(order.length, "picture")}, ${VERDICTS.map((name, value) => `${order.filter((row) => col.v[row] === value).length} ${name}`).join(", ")}.`),
    ...make_figures(), el("h2", null, order.length > shown.length ? `The first ${shown.length} of ${many(order.length, "picture")}` : "Pictures"), table(["", "Verdict", "Name", "Type", "Score", "Lot, station", "Label"], lines, [4])];
}
function prepare_paper() {
  paper.replaceChildren(...(state.open !== null && view.detail ? paper_part() : paper_list()).filter(Boolean));
}
addEventListener("beforeprint", prepare_paper);
addEventListener("afterprint", () => paper.replaceChildren());

function show_about() {
  const block = (title, pairs) => (pairs.length ? el("section", { class: "card" }, el("h2", null, title), el("table", null, el("tbody", null, pairs.map(([name, value]) => el("tr", null, el("th", { scope: "row" }, name), el("td", { dir: "auto" }, value)))))) : null);
  byId("about").replaceChildren(...audit.about.map(([title, pairs]) => block(title, pairs)).filter(Boolean));
}
