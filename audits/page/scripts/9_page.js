// Puts the parts together: views, keys, colours and the page's address.
function refresh(changed = false) {
  const kept_row = order[state.at];
  find();
  state.at = Math.max(0, changed ? 0 : order.indexOf(kept_row));
  show_facets();
  show_tiles();
  show_chips();
  show_order();
  byId("count").textContent = order.length === rows ? many(rows, "picture") : `${order.length.toLocaleString("en")} of ${many(rows, "picture")}`;
  byId("nothing").hidden = order.length > 0;
  show_view(changed);
  write_address();
}
function show_view(to_top = false) {
  for (const name of VIEWS) {
    const on = state.view === name, tab = byId(`tab-${name}`);
    byId(`view-${name}`).hidden = !on;
    tab.setAttribute("aria-selected", on ? "true" : "false");
    tab.tabIndex = on ? 0 : -1;
  }
  byId("order").hidden = state.view !== "pictures";
  for (const id of ["filters", "chips", "count"]) byId(id).hidden = state.view === "about"; // nothing of it is filtered
  if (state.view === "pictures") repaint(to_top);
  if (state.view === "figures") draw_figures();
}
function draw_figures() {
  const panel = byId("figures");
  do {
    drawn_px = panel.clientWidth;
    panel.replaceChildren(...make_figures());
  } while (panel.clientWidth < drawn_px); // the first drawing may bring a scroll bar; it can only take width away
}
function go(name) { state.view = name; show_view(); write_address(true); }
function show_theme() {
  const asked = state.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  document.documentElement.dataset.theme = asked;
  byId("theme").textContent = asked === "dark" ? "Light" : "Dark";
  byId("theme").setAttribute("aria-label", asked === "dark" ? "Change to light colours" : "Change to dark colours");
}
function switch_theme() {
  state.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  show_theme();
  write_address();
}
function switch_maps() { state.maps = !state.maps; byId("maps").checked = state.maps; repaint(); write_address(); }

// --- controls ------------------------------------------------------------------------------------------------------
const rested = (work) => { let timer = 0; return () => { clearTimeout(timer); timer = setTimeout(work, 180); }; };
byId("search").addEventListener("input", rested(() => { state.q = byId("search").value.trim(); refresh(true); }));
for (const end of ["lo", "hi"]) byId(end).addEventListener("input", rested(() => { const text = byId(end).value; state[end] = text === "" || !Number.isFinite(Number(text)) ? null : Number(text); refresh(true); }));
byId("sort").addEventListener("change", () => { state.sort = byId("sort").value; state.down = FALLING.has(state.sort); refresh(true); });
byId("direction").addEventListener("click", () => { state.down = !state.down; refresh(true); });
byId("maps").addEventListener("change", switch_maps);
byId("theme").addEventListener("click", switch_theme);
byId("help").addEventListener("click", () => byId("keys").showModal());
byId("skip").addEventListener("click", (event) => { event.preventDefault(); if (state.view !== "pictures") go("pictures"); scroller.focus(); });
for (const name of VIEWS) byId(`tab-${name}`).addEventListener("click", () => go(name));
byId("tabs").addEventListener("keydown", (event) => {
  const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (!step) return;
  go(VIEWS[(VIEWS.indexOf(state.view) + step + VIEWS.length) % VIEWS.length]);
  byId(`tab-${state.view}`).focus();
  event.preventDefault();
  event.stopPropagation();
});
byId("previous").addEventListener("click", () => move_part(-1));
byId("next").addEventListener("click", () => move_part(1));
byId("close").addEventListener("click", close_part);
byId("mode-slide").addEventListener("click", () => set_mode("slide"));
byId("mode-beside").addEventListener("click", () => set_mode("beside"));
byId("slide").addEventListener("input", () => { view.moved = true; set_slide(Number(byId("slide").value)); });
byId("boxes").addEventListener("change", () => { view.boxes = byId("boxes").checked; show_stage(); });
byId("smaller").addEventListener("click", () => set_zoom(view.zoom / 1.5));
byId("larger").addEventListener("click", () => set_zoom(view.zoom * 1.5));
byId("fit").addEventListener("click", () => set_zoom(1));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show_theme);
let drawn_px = 0;
new ResizeObserver(rested(() => {
  const wide_px = byId("figures").clientWidth;
  if (wide_px && wide_px !== drawn_px && state.view === "figures") show_view();
})).observe(byId("figures"));

// --- keys ----------------------------------------------------------------------------------------------------------
const typing = (node) => node instanceof HTMLSelectElement || (node instanceof HTMLInputElement && !["checkbox", "range"].includes(node.type));
const ARROWS = new Set(["ArrowLeft", "ArrowRight", "ArrowUp", "ArrowDown", "Home", "End", "PageUp", "PageDown"]);
document.addEventListener("keydown", (event) => {
  const { key, target } = event;
  if (event.ctrlKey || event.metaKey || event.altKey || byId("keys").open) return;
  if (typing(target)) {
    if (key === "Escape" && target === byId("search")) { if (!target.value) scroller.focus(); }
    else if (key === "Enter" && target === byId("search")) scroller.focus();
    return;
  }
  if (key.length === 1 && key !== " " && !byId("single").checked) return;
  if (key === "?") byId("keys").showModal();
  else if (key === "t") switch_theme();
  else if (state.open !== null ? !part_key(key, target) : !page_key(key, target)) return;
  event.preventDefault();
});
function part_key(key, target) {
  if (target instanceof HTMLInputElement && target.type === "range" && ARROWS.has(key)) return false;
  const by = { ArrowRight: 1, ArrowLeft: -1, j: 1, k: -1 }[key];
  if (by) move_part(by);
  else if (key === "m") set_mode(view.mode === "slide" ? "beside" : "slide");
  else if (key === "b") { view.boxes = !view.boxes; show_stage(); }
  else if (key === "+" || key === "=") set_zoom(view.zoom * 1.5);
  else if (key === "-") set_zoom(view.zoom / 1.5);
  else if (key === "0") set_zoom(1);
  else return false;
  return true;
}
function page_key(key, target) {
  if (key === "/") { byId("search").focus(); byId("search").select(); }
  else if (["1", "2", "3"].includes(key)) toggle("v", Number(key) - 1, true);
  else if (state.view !== "pictures") return false;
  else if (key === "m") switch_maps();
  else if (key === "j" || key === "k") { scroller.focus(); return gallery_key(key); }
  else if (target === scroller || target === document.body) return gallery_key(key);
  else return false;
  return true;
}

// --- the address -----------------------------------------------------------------------------------------------------
function follow_address() {
  if (location.hash.slice(1) === address()) return;
  read_address();
  const open = state.open;
  state.open = null;
  if (open === null) close_part();
  state.open = open; // so that refreshing writes the same address again
  show_theme();
  refresh();
  if (open !== null) open_part(open, false);
}
addEventListener("hashchange", follow_address);

read_address();
show_theme();
show_about();
{
  const open = state.open;
  refresh();
  if (open !== null) { state.at = Math.max(0, order.indexOf(open)); open_part(open, false); }
}
