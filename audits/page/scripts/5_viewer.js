// Picture and map of one part: cut by a slider or side by side, with its regions.
const view = { mode: "slide", at: 50, zoom: 1, boxes: true, row: null, detail: null, moved: false };
const stagebox = byId("stagebox");

function layers(row) {
  const found = small(row), big = large(row);
  return { picture: big ?? found?.thumbnail ?? null, map: found?.map ?? null, whole: big !== null };
}
function picture_alt(row) {
  const kind = word("type", row);
  return `Picture of ${basename(row)}${col.serial[row] ? `, serial ${col.serial[row]}` : ""}: ${VERDICTS[col.v[row]]}${kind ? `, ${spoken(kind)}` : ""}`;
}
function map_alt(row, detail) {
  const places = (detail?.regions ?? []).map((region) => region.place);
  return places.length ? `Anomaly map: suspicious at the ${places.join("; ")}` : "Anomaly map: nothing stands out";
}
// Regions, and whatever else of the evidence names a box.
function boxes_of(detail) {
  const found = detail.regions.map((region) => ({ id: region.id, box: region.box, zoomed: false }));
  const known = new Set(found.map((each) => each.id));
  for (const item of detail.evidence) {
    const { x0, y0, x1, y1 } = item.values ?? {};
    if (!known.has(item.id) && [x0, y0, x1, y1].every(Number.isFinite) && x1 > x0 && y1 > y0) found.push({ id: item.id, box: [x0, y0, x1, y1], zoomed: true });
  }
  return found;
}
// Until somebody moves the slider, it cuts through the strongest region: half the flaw as it is, half as the map sees it.
function first_cut({ size, regions: [first] }) {
  return size && first ? Math.round(Math.max(15, Math.min(85, (50 * (first.box[0] + first.box[2])) / size[0]))) : 50;
}
function make_stage(row, detail, parts, side) {
  const stage = el("div", { class: "stage" });
  const base = () => el("img", { src: parts.picture, alt: "", draggable: "false" });
  if (side !== "map") {
    const picture = base();
    picture.alt = picture_alt(row);
    stage.append(picture);
  }
  if (side !== "picture" && parts.map !== null) {
    const grey = base();
    grey.className = "grey";
    if (parts.map === "") grey.alt = map_alt(row, detail);
    const over = el("div", { class: "over" }, grey);
    if (parts.map) over.append(el("img", { src: parts.map, alt: map_alt(row, detail), draggable: "false" }));
    stage.append(over);
    if (side === "both") {
      stage.classList.add("slides");
      stage.append(el("span", { class: "cut", "aria-hidden": "true" }));
      const drag = (event) => {
        if (event.type !== "pointerdown" && !event.buttons) return;
        const frame = stage.getBoundingClientRect();
        view.moved = true;
        set_slide(Math.round((100 * (event.clientX - frame.left)) / frame.width));
      };
      stage.addEventListener("pointerdown", (event) => { stage.setPointerCapture(event.pointerId); drag(event); });
      stage.addEventListener("pointermove", drag);
    }
  }
  const [width, height] = detail.size ?? [0, 0];
  if (width && view.boxes) for (const { id, box, zoomed } of boxes_of(detail)) {
    const node = el("span", { class: `region${zoomed ? " zoomed" : ""}${box[1] < 0.08 * height ? " low" : ""}`, "data-id": id, "aria-hidden": "true" }, el("b", null, id));
    Object.assign(node.style, { left: percent(box[0] / width, 3).replace(" ", ""), top: percent(box[1] / height, 3).replace(" ", ""), width: percent((box[2] - box[0]) / width, 3).replace(" ", ""), height: percent((box[3] - box[1]) / height, 3).replace(" ", "") });
    stage.append(node);
  }
  if (side !== "both") stage.append(el("span", { class: "sidecap", "aria-hidden": "true" }, side === "map" ? "Map" : "Picture"));
  return stage;
}
function show_stage() {
  const { row, detail } = view;
  if (row === null || !detail) return;
  const parts = layers(row);
  const notes = [];
  stagebox.replaceChildren();
  if (!parts.picture) {
    stagebox.append(el("p", { class: "sidecap" }, "No picture was kept, and its file could not be read when the page was made."));
  } else {
    const beside = view.mode === "beside" && parts.map !== null;
    const sides = beside ? ["picture", "map"] : ["both"];
    for (const side of sides) stagebox.append(make_stage(row, detail, parts, side));
    if (parts.map === null) notes.push("No anomaly map was kept for this picture.");
    if (parts.map === "") notes.push("The map is empty: nothing rises above the spread of good parts.");
    if (!parts.whole && Math.max(...(detail.size ?? [0])) > audit.thumbnail_px) notes.push("Only the thumbnail is in this page; the file has the full picture.");
    fit_stage();
    set_slide(view.at);
  }
  byId("slidelabel").hidden = view.mode !== "slide" || parts.map === null || !parts.picture;
  byId("viewernote").textContent = notes.join(" ");
  for (const mode of ["slide", "beside"]) byId(`mode-${mode}`).setAttribute("aria-pressed", view.mode === mode ? "true" : "false");
  byId("boxes").checked = view.boxes;
  light([], false);
}
function fit_stage() {
  const stages = [...stagebox.querySelectorAll(".stage")];
  const [width, height] = view.detail?.size ?? [1, 1];
  const room_px = (stagebox.clientWidth - 24 - 12 * (stages.length - 1)) / stages.length, high_px = stagebox.clientHeight - 24;
  const scale = Math.max(0.01, Math.min(room_px / width, high_px / height)) * view.zoom;
  for (const stage of stages) {
    stage.style.width = `${Math.max(1, Math.round(width * scale))}px`;
    stage.style.height = `${Math.max(1, Math.round(height * scale))}px`;
  }
}
function set_slide(at) {
  view.at = Math.max(0, Math.min(100, at));
  const range = byId("slide");
  range.value = view.at;
  range.setAttribute("aria-valuetext", `${view.at} percent picture, ${100 - view.at} percent map`);
  const over = stagebox.querySelector(".slides .over"), cut = stagebox.querySelector(".cut");
  if (over) over.style.clipPath = `inset(0 0 0 ${view.at}%)`;
  if (cut) cut.style.left = `${view.at}%`;
}
function set_mode(mode) { view.mode = mode; show_stage(); }
function set_zoom(zoom) { view.zoom = Math.max(1, Math.min(12, zoom)); fit_stage(); }
new ResizeObserver(fit_stage).observe(stagebox);
