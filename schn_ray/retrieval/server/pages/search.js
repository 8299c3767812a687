"use strict";

// What is searched for, and how, stands in the address: a link to it, "back" and "forward" open it.
// An image of one's own is there as its code and the SHA-256 of its file; the file itself is known
// to this page only, until it is left.
const perPage = 60;
const names = new Set(["id", "code", "sha256", "k", "radius", "rescore", "oversample", "where"]);
const mostChoices = 300;
let state = new URLSearchParams();
const files = new Map(); // SHA-256 -> File
let hits = [];
let requests = 0; // only the answer to the last request is shown
let timer = null;
let preview = null; // object URL of the last file

async function start() {
  const about = await (await fetch("/healthz")).json();
  $("about").textContent =
    `${about.index_rows.toLocaleString()} images, ${about.bits}-bit codes`;
  for (const option of [...$("rescore").options]) {
    option.hidden = false;
    if (option.value && !about.rescorings.includes(option.value)) option.remove();
  }
  viewer.originals = about.originals;
  $("radius").max = about.bits;
  const counts = [20, perPage, 120, about.max_results].filter((count) => count <= about.max_results);
  for (const count of new Set(counts)) addCount(count);
  $("finer").open = matchMedia("(min-width: 52rem)").matches;
  showColumns(about.columns);
  restore();
  await showValues(about);
}

// Show what the address says.
async function restore() {
  state = new URLSearchParams(location.search);
  showControls();
  const unknown = [...state.keys()].some((name) => !names.has(name));
  if (isSearch(state) || unknown) {
    showSearched();
    await search();
  } else {
    await begin();
  }
  viewer.restore(hits);
}

function isSearch(parameters) {
  return parameters.has("id") || parameters.has("code");
}

// Put the state into the address. Steps of the slider are one entry of the history.
function remember(change, more = {}) {
  const { name, preview } = history.state ?? {};
  const entry = { name, preview, change, ...more };
  const url = state.size ? `/?${state}` : "/";
  const same = change === "radius" && history.state?.change === "radius";
  if (same || history.state?.view) history.replaceState(entry, "", url);
  else history.pushState(entry, "", url);
}

function set(name, value) {
  if (value === "" || value === null) state.delete(name);
  else state.set(name, value);
}

function changed(name, value) {
  set(name, value);
  showControls();
  if (!isSearch(state) && name !== "where") return;
  remember(name);
  if (isSearch(state)) search();
  else begin();
}

function showControls() {
  const radius = state.get("radius") ?? $("radius").max;
  $("radius").value = radius;
  $("bits").value = Number(radius) >= Number($("radius").max) ? "any distance" : bits(Number(radius));
  $("rescore").value = state.get("rescore") ?? "";
  $("where").value = state.get("where") ?? "";
  showValue();
  const count = state.get("k") ?? String(perPage);
  if (state.has("k") && ![...$("k").options].some((option) => option.value === count)) addCount(count);
  $("k").value = count;
  if ($("k").selectedIndex < 0) $("k").selectedIndex = $("k").options.length - 1;
  const listed = !$("narrow").hidden && !$("value").querySelector(".other");
  if (state.has("rescore") || state.has("k") || (state.has("where") && !listed)) $("finer").open = true;
}

function addCount(count) {
  const option = document.createElement("option");
  option.value = count;
  option.textContent = `${count} images`;
  $("k").append(option);
}

function showColumns(columns) {
  const known = Object.keys(columns);
  $("filter").hidden = known.length === 0;
  const named = known.map((name) => `${name} (${columns[name]})`).join(", ");
  $("columns").textContent = `Columns: ${named}. Also id and uri.`;
  $("where").placeholder = example(columns);
}

// A list of the classes, or folders, where there are not too many to choose from.
async function showValues(about) {
  const name = about.listed_column;
  if (!name) return;
  const parameters = new URLSearchParams({ column: name, k: Math.min(mostChoices, about.max_results) });
  const answer = await (await fetch(`/values?${parameters}`)).json();
  const { values, distinct } = answer;
  if (distinct < 2 || distinct > values.length) return;
  const choices = values.map(({ value, rows }) => {
    const condition = `${quoted(name)} = '${value.replaceAll("'", "''")}'`;
    return new Option(`${value || "(none)"} (${rows.toLocaleString()})`, condition);
  });
  choices.sort((one, other) => one.text.localeCompare(other.text));
  const any = new Option(`any (${distinct.toLocaleString()})`, "");
  $("value").replaceChildren(any, ...choices);
  $("named").textContent = name === "folder" ? "Folder" : "Class";
  $("narrow").hidden = false;
  showControls();
}

function showValue() {
  const where = state.get("where") ?? "";
  $("value").querySelector(".other")?.remove();
  $("value").value = where;
  if ($("value").selectedIndex >= 0 || $("narrow").hidden) return;
  const other = new Option("as the filter says", where);
  other.className = "other";
  $("value").prepend(other);
  $("value").value = where;
}

function example(columns) {
  const values = { text: "= 'cat'", boolean: "= true", date: ">= '2020-01-31'", time: ">= '2020-01-31'" };
  const parts = Object.entries(columns).slice(0, 2);
  return parts.map(([name, kind]) => `${quoted(name)} ${values[kind] ?? ">= 10"}`).join(" and ");
}

function quoted(name) {
  return /^[A-Za-z_]\w*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

function bits(n) {
  return n === 1 ? "1 bit" : `${n} bits`;
}

// How to search, without what for.
function options() {
  const { id, code, sha256, ...how } = { k: $("k").value, ...Object.fromEntries(state) };
  return how;
}

function send(file) {
  if (file) {
    return fetch(`/search?${new URLSearchParams(options())}`, { method: "POST", body: file });
  }
  return fetch("/search", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ k: $("k").value, ...Object.fromEntries(state) }),
  });
}

// Search for what the state says, or for a file; return the answer, or null if there is none.
async function search(file = null) {
  const mine = ++requests;
  $("results").classList.add("old");
  if (!file && state.has("code") && state.has("rescore")) {
    file = files.get(state.get("sha256")) ?? null; // a code alone cannot be rescored
    if (!file) {
      fail("This order needs the image itself, and this page has only its code: choose the image again, or order by bits.");
      return null;
    }
  }
  try {
    const response = await send(file);
    const answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error || `the server answered ${response.status}`);
    if (mine !== requests) return null;
    showWrongFilter("");
    showResults(answer);
    return answer;
  } catch (error) {
    if (mine === requests) fail(error.message);
    return null;
  }
}

function fail(message) {
  const filter = message.includes("\n"); // it shows where the condition is wrong
  showWrongFilter(filter ? message : "");
  $("searched").hidden = false;
  $("begin").hidden = true;
  $("status").className = filter ? "" : "wrong";
  $("status").textContent = filter ? "The filter cannot be read." : message;
  hits = [];
  $("results").replaceChildren();
  $("results").classList.remove("old");
}

function showWrongFilter(message) {
  const [why, ...where] = message.split("\n");
  $("wrong").querySelector("p").textContent = why;
  $("wrong").querySelector("pre").textContent = where.join("\n");
  $("wrong").hidden = !message;
  if (message) $("finer").open = true;
  $("where").setAttribute("aria-invalid", String(Boolean(message)));
}

async function begin() {
  requests++;
  document.title = "Image search";
  $("searched").hidden = true;
  const mine = requests;
  const how = new URLSearchParams({ k: Math.min(24, Number($("k").lastChild.value)) });
  if (state.has("where")) how.set("where", state.get("where"));
  const response = await fetch(`/examples?${how}`);
  const answer = await response.json();
  if (mine !== requests) return;
  if (!response.ok) {
    fail(answer.error);
    return;
  }
  showWrongFilter("");
  $("begin").textContent = answer.images.length ? "Or begin with one of these" : "No image passes the filter.";
  $("begin").hidden = false;
  show(answer.images);
}

function showResults(answer) {
  $("status").className = "";
  $("status").textContent = summary(answer);
  $("begin").hidden = true;
  if (answer.labels?.length) {
    $("looking").textContent = `${looking()} (${answer.labels.join(", ")})`;
  }
  show(answer.hits);
}

function show(images) {
  hits = images;
  $("results").replaceChildren(...images.map(result));
  $("results").classList.remove("old");
}

function summary(answer) {
  const { candidates, proven } = answer;
  if (candidates === undefined || !candidates) return counted(answer);
  const scored = candidates.toLocaleString();
  return `${counted(answer)}. ${proven ? `All ${scored}` : `Only the nearest ${scored} by bits`} were scored.`;
}

function counted({ within_radius: count, hits, rows, passing }) {
  if (passing === 0) return "No image passes the filter.";
  if (count === 0 && passing !== undefined) return "Nothing within this distance passes the filter.";
  if (count === 0) return "Nothing within this distance: move the slider to the right.";
  const best = hits.length && hits[0].score !== undefined ? "best" : "nearest";
  const of = passing === undefined ? "" : " that pass the filter";
  if (count === undefined) {
    return `The ${best} ${hits.length} of ${(passing ?? rows).toLocaleString()}${of}`;
  }
  const all = hits.length === count;
  return `${count.toLocaleString()} found${of}, ${all ? `${best} first` : `the ${best} ${hits.length} shown`}`;
}

function element(name, className, text) {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function measures(hit) {
  const parts = [];
  if (hit.distance !== undefined) {
    parts.push(element("span", "distance", hit.distance === 0 ? "same code" : bits(hit.distance)));
  }
  if (hit.score !== undefined) parts.push(element("span", "score", `score ${hit.score.toFixed(3)}`));
  return parts;
}

// Path, class and distance of an image, as text.
function described(hit) {
  const line = element("span", "measures", "");
  line.append(...measures(hit));
  const path = element("span", "path", hit.id);
  path.title = hit.id;
  return [...(hit.labels?.length ? [element("span", "labels", hit.labels.join(", "))] : []), path, line];
}

function alternative(hit) {
  return hit.labels?.length ? `${hit.labels.join(", ")}: ${hit.id}` : hit.id;
}

function result(hit, position) {
  const item = document.createElement("li");
  item.dataset.id = hit.id;
  const link = document.createElement("a");
  link.href = address(viewer.originals ? "original" : "image", hit.id);
  const picture = document.createElement("img");
  picture.className = "picture";
  picture.alt = alternative(hit);
  picture.loading = "lazy";
  picture.addEventListener("load", () => sharpen(picture));
  picture.addEventListener("error", () => picture.replaceWith(element("span", "picture gone", "image is gone")));
  picture.src = address("image", hit.id);
  link.append(picture);
  link.addEventListener("click", (event) => {
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a tab of its own
    event.preventDefault();
    viewer.open(hits, position);
  });
  const button = element("button", "", "Similar");
  button.type = "button";
  button.title = `More like ${hit.id}`;
  button.setAttribute("aria-label", button.title);
  button.addEventListener("click", () => searchForId(hit.id));
  item.append(link, ...described(hit), button);
  return item;
}

function address(what, id) {
  return `/${what}/${id.split("/").map(encodeURIComponent).join("/")}`;
}

function sharpen(picture) {
  picture.classList.toggle("pixelated", Math.max(picture.naturalWidth, picture.naturalHeight) <= 64);
}

function searchForId(id) {
  for (const name of ["code", "sha256"]) state.delete(name);
  state.set("id", id);
  remember("id", { name: undefined, preview: undefined });
  $("viewer").close();
  showSearched();
  search();
  scrollUp();
}

async function searchForFile(file) {
  if (!file) return;
  if (preview) URL.revokeObjectURL(preview);
  preview = URL.createObjectURL(file);
  for (const name of ["id", "code", "sha256"]) state.delete(name); // until there is an answer
  const name = file.name || "the pasted image";
  showQuery(preview, `Images like ${name}`);
  scrollUp();
  const sent = JSON.stringify(options());
  const [answer, small] = await Promise.all([search(file), thumbnail(file)]);
  if (!answer) return;
  files.set(answer.sha256, file);
  state.set("code", answer.code);
  state.set("sha256", answer.sha256);
  remember("file", { name, preview: small });
  if (JSON.stringify(options()) !== sent) search(); // a control was moved meanwhile
}

// A small copy for the history, which outlives a reload; null if the browser cannot read the image.
async function thumbnail(file) {
  try {
    const whole = await createImageBitmap(file);
    const scale = Math.min(1, 192 / Math.max(whole.width, whole.height));
    const canvas = document.createElement("canvas");
    canvas.width = Math.max(1, Math.round(whole.width * scale));
    canvas.height = Math.max(1, Math.round(whole.height * scale));
    canvas.getContext("2d").drawImage(whole, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL(canvas.width <= 64 ? "image/png" : "image/jpeg", 0.85);
  } catch {
    return null;
  }
}

function looking() {
  if (state.has("id")) return `More like ${state.get("id")}`;
  if (!state.has("code")) return "";
  return history.state?.name ? `Images like ${history.state.name}` : `Images like code ${state.get("code")}`;
}

function showSearched() {
  const source = state.has("id") ? address("image", state.get("id")) : (history.state?.preview ?? null);
  showQuery(source, looking());
}

function showQuery(source, text) {
  $("searched").hidden = false;
  $("begin").hidden = true;
  $("query").hidden = false;
  $("frame").replaceChildren($("query")); // no word of an earlier one
  if (source) $("query").src = source;
  else noPicture("an image that was sent: not stored");
  $("query").alt = text;
  $("looking").textContent = text;
  $("looking").title = text;
  document.title = text ? `${text} · Image search` : "Image search";
}

function noPicture(why) {
  $("query").hidden = true;
  $("frame").append(why);
}

function scrollUp() {
  const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
  $("answer").scrollIntoView({ behavior: calm ? "auto" : "smooth" });
}

$("query").addEventListener("load", () => sharpen($("query")));
$("query").addEventListener("error", () => noPicture(state.has("id") ? "image is gone" : "no preview"));
$("file").addEventListener("change", () => {
  searchForFile($("file").files[0]);
  $("file").value = ""; // the same file can be chosen again
});
$("radius").addEventListener("input", () => {
  const radius = $("radius").value;
  set("radius", Number(radius) < Number($("radius").max) ? radius : null);
  showControls();
  clearTimeout(timer);
  timer = setTimeout(() => changed("radius", state.get("radius")), 120);
});
$("rescore").addEventListener("change", () => changed("rescore", $("rescore").value));
$("where").addEventListener("change", () => changed("where", $("where").value.trim()));
$("value").addEventListener("change", () => changed("where", $("value").value));
$("k").addEventListener("change", () => changed("k", Number($("k").value) === perPage ? null : $("k").value));
for (const name of ["dragenter", "dragover"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.add("over");
  });
}
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    event.preventDefault();
    $("drop").classList.remove("over");
  });
}
document.addEventListener("drop", (event) => searchForFile(event.dataTransfer.files[0]));
document.addEventListener("paste", (event) => searchForFile(event.clipboardData.files[0]));
$("ask").addEventListener("submit", (event) => event.preventDefault());
window.addEventListener("popstate", () => {
  const before = state.toString();
  if (new URLSearchParams(location.search).toString() === before) viewer.restore(hits);
  else restore();
});
start().catch(() => fail("The server does not answer."));
