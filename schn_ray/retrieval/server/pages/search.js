"use strict";

const $ = (id) => document.getElementById(id);
const shown = 60;
let query = null; // {file}, then with its code, or {id}
let requests = 0; // only the answer to the last request is shown
let timer = null;
let preview = null;

async function start() {
  const about = await (await fetch("/healthz")).json();
  $("about").textContent =
    `${about.index_rows.toLocaleString()} images, ${about.bits}-bit codes`;
  for (const option of [...$("rescore").options]) {
    option.hidden = false;
    if (option.value && !about.rescorings.includes(option.value)) option.remove();
  }
  $("radius").max = about.bits;
  $("radius").value = about.bits;
  showRadius();
  showColumns(about.columns);
}

function showColumns(columns) {
  const names = Object.keys(columns);
  $("filter").hidden = names.length === 0;
  const named = names.map((name) => `${name} (${columns[name]})`).join(", ");
  $("columns").textContent = `Columns: ${named}. Also id and uri.`;
  $("where").placeholder = example(columns);
}

function example(columns) {
  const values = { text: "= 'cat'", boolean: "= true", date: ">= '2020-01-31'", time: ">= '2020-01-31'" };
  const parts = Object.entries(columns).slice(0, 2);
  return parts.map(([name, kind]) => `${quoted(name)} ${values[kind] ?? ">= 10"}`).join(" and ");
}

function quoted(name) {
  return /^[A-Za-z_]\w*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
}

function showRadius() {
  const radius = Number($("radius").value);
  const any = radius >= Number($("radius").max);
  $("bits").value = any ? "any distance" : bits(radius);
}

function bits(n) {
  return n === 1 ? "1 bit" : `${n} bits`;
}

function request() {
  const radius = Number($("radius").value);
  const within = radius < Number($("radius").max) ? { radius } : {};
  if ($("rescore").value) within.rescore = $("rescore").value;
  const where = $("where").value.trim();
  if (where) within.where = where;
  if (query.file && (!query.code || within.rescore)) {
    const parameters = new URLSearchParams({ k: shown, ...within });
    return fetch(`/search?${parameters}`, { method: "POST", body: query.file });
  }
  return fetch("/search", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ ...(query.file ? { code: query.code } : query), k: shown, ...within }),
  });
}

async function search() {
  if (!query) return;
  const mine = ++requests;
  $("results").classList.add("old");
  let answer;
  try {
    const response = await request();
    answer = await response.json().catch(() => ({}));
    if (!response.ok) throw new Error(answer.error || `the server answered ${response.status}`);
    if (mine === requests) showWrongFilter("");
  } catch (error) {
    if (mine === requests) fail(error.message);
    return;
  }
  if (mine !== requests) return;
  if (query.file) query.code = answer.code; // the slider need not send the image again
  showResults(answer);
}

function fail(message) {
  const filter = message.includes("\n"); // it shows where the condition is wrong
  showWrongFilter(filter ? message : "");
  $("status").className = filter ? "" : "wrong";
  $("status").textContent = filter ? "" : message;
  $("results").replaceChildren();
  $("results").classList.remove("old");
}

function showWrongFilter(message) {
  const [why, ...where] = message.split("\n");
  $("wrong").querySelector("p").textContent = why;
  $("wrong").querySelector("pre").textContent = where.join("\n");
  $("wrong").hidden = !message;
  $("where").setAttribute("aria-invalid", String(Boolean(message)));
}

function showResults(answer) {
  $("status").className = "";
  $("status").textContent = summary(answer);
  $("results").replaceChildren(...answer.hits.map(result));
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

function result(hit) {
  const item = document.createElement("li");
  const button = document.createElement("button");
  button.type = "button";
  button.title = `More like ${hit.id}`;
  const picture = document.createElement("img");
  picture.className = "picture";
  picture.alt = hit.id;
  picture.loading = "lazy";
  picture.addEventListener("load", () => sharpen(picture));
  picture.addEventListener("error", () => {
    const gone = document.createElement("span");
    gone.className = "picture gone";
    gone.textContent = "image is gone";
    picture.replaceWith(gone);
  });
  picture.src = address(hit.id);
  const distance = document.createElement("span");
  distance.className = "distance";
  distance.textContent = hit.distance === 0 ? "same code" : bits(hit.distance);
  const score = document.createElement("span");
  score.className = "score";
  if (hit.score !== undefined) score.textContent = `score ${hit.score.toFixed(3)}`;
  const id = document.createElement("span");
  id.className = "id";
  id.textContent = hit.id.split("/").pop();
  button.append(picture, distance, score, id);
  button.addEventListener("click", () => searchForId(hit.id));
  item.append(button);
  return item;
}

function address(id) {
  return `/image/${id.split("/").map(encodeURIComponent).join("/")}`;
}

function sharpen(picture) {
  picture.classList.toggle("pixelated", Math.max(picture.naturalWidth, picture.naturalHeight) <= 64);
}

function searchForId(id) {
  query = { id };
  showQuery(address(id), `More like ${id}`);
  search();
  window.scrollTo({ top: 0, behavior: "smooth" });
}

function searchForFile(file) {
  if (!file) return;
  query = { file };
  if (preview) URL.revokeObjectURL(preview);
  preview = URL.createObjectURL(file);
  showQuery(preview, `Images like ${file.name || "the pasted one"}`);
  search();
}

function showQuery(source, text) {
  $("query").src = source;
  $("query").hidden = false;
  $("invite").hidden = true;
  $("looking").textContent = text;
}

$("query").addEventListener("load", () => sharpen($("query")));
$("file").addEventListener("change", () => searchForFile($("file").files[0]));
$("radius").addEventListener("input", () => {
  showRadius();
  clearTimeout(timer);
  timer = setTimeout(search, 120);
});
$("rescore").addEventListener("change", search);
$("where").addEventListener("change", search);
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
start().catch(() => fail("The server does not answer."));
