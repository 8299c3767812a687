"use strict";

const $ = (id) => document.getElementById(id);
const hues = [
  "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#b07aa1", "#3fb5b0", "#d4a017", "#f58aa0",
  "#9c755f", "#2f9ed8", "#8cb840", "#d6559b", "#7a7ee0", "#17a589", "#c0603a",
];
const shownImages = 12; // of the point that was clicked
const reach = 12; // CSS pixels from the pointer to a point
const names = new TextDecoder();
const dark = matchMedia("(prefers-color-scheme: dark)");
const canvas = $("canvas");
const context = canvas.getContext("2d");
const view = { x: 0.5, y: 0.5, scale: 1, width: 1, height: 1, ratio: 1 }; // scale: CSS pixels of the whole map
const pointers = new Map();
const thumbnails = new Map(); // point -> data URI
const drawnPictures = new Map(); // point -> Image
let data, colouring, cellStarts;
let highlighted = new Set(); // entries of the legend
let hovered = -1, chosen = -1, searched = -1, pending = false, pinch = null, moved = false;

async function section(name) {
  const element = $(`data-${name}`);
  if (!element) return null;
  const text = atob(element.textContent);
  element.remove();
  const packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function start() {
  const about = JSON.parse(names.decode(await section("about")));
  data = { ...about, x: new Float32Array(await section("x")), y: new Float32Array(await section("y")) };
  data.starts = new Uint32Array(await section("starts"));
  data.ids = await strings("ids");
  data.uris = await strings("uris");
  data.values = [];
  for (let i = 0; i < data.colourings.length; i++) {
    data.values.push(new Uint32Array(await section(`colour-${i}`)));
    $("colouring").append(new Option(data.colourings[i].title, i));
  }
  for (const [point, uri] of data.pictures) thumbnails.set(point, uri);
  cellStarts = countCells();
  setColouring(0);
  resize(); // also shows all
  showAll();
  $("status").textContent = "";
  document.body.dataset.ready = "true";
}

async function strings(name) {
  const text = await section(name);
  return text && { text: new Uint8Array(text), ends: new Uint32Array(await section(`${name}-ends`)) };
}

function stringAt(column, row) {
  return names.decode(column.text.subarray(row ? column.ends[row - 1] : 0, column.ends[row]));
}

const idOf = (row) => stringAt(data.ids, row);
const uriOf = (row) => (data.uris ? stringAt(data.uris, row) : data.prefix + idOf(row));
const cellOf = (value) => Math.min(data.cells - 1, Math.max(0, Math.floor(value * data.cells)));

function countCells() {
  const starts = new Uint32Array(data.cells * data.cells + 1);
  for (let i = 0; i < data.x.length; i++) starts[cellOf(data.y[i]) * data.cells + cellOf(data.x[i]) + 1]++;
  for (let i = 1; i < starts.length; i++) starts[i] += starts[i - 1];
  return starts;
}

// the ranges of points, a row of cells each, that a rectangle of the map touches
function* ranges(left, top, right, bottom) {
  if (right < 0 || bottom < 0 || left > 1 || top > 1) return;
  const first = cellOf(left), last = cellOf(right);
  for (let row = cellOf(top); row <= cellOf(bottom); row++) {
    const low = cellStarts[row * data.cells + first], high = cellStarts[row * data.cells + last + 1];
    if (low < high) yield [low, high];
  }
}

function inView(margin) {
  const across = (view.width / 2 + margin) / view.scale, down = (view.height / 2 + margin) / view.scale;
  return ranges(view.x - across, view.y - down, view.x + across, view.y + down);
}

function screenOf(point) {
  return [
    (data.x[point] - view.x) * view.scale + view.width / 2,
    (data.y[point] - view.y) * view.scale + view.height / 2,
  ];
}

const imagesOf = (point) => data.starts[point + 1] - data.starts[point];

function colourOf(value) {
  if (value === 0) return dark.matches ? "#5a606a" : "#b9bec6";
  return value <= hues.length ? hues[value - 1] : dark.matches ? "#9aa1ac" : "#757c86";
}

function pixelOf(colour, strength) {
  const number = parseInt(colour.slice(1), 16);
  return ((strength << 24) | ((number & 255) << 16) | (number & 0xff00) | (number >> 16)) >>> 0;
}

function redraw() {
  if (pending || colouring === undefined) return; // the window may change before all is read
  pending = true;
  requestAnimationFrame(() => {
    pending = false;
    draw();
  });
}

function draw() {
  const width = canvas.width, height = canvas.height;
  const image = context.createImageData(width, height);
  const pixels = new Uint32Array(image.data.buffer);
  const shades = new Uint32Array(data.colourings[colouring].names.length);
  for (let i = 0; i < shades.length; i++) shades[i] = pixelOf(colourOf(i), 255);
  const faint = pixelOf(dark.matches ? "#30343b" : "#e3e6ea", 255);
  if (highlighted.size) drawPoints(pixels, width, height, (value) => (isHighlighted(value) ? 0 : faint));
  drawPoints(pixels, width, height, (value) => (isHighlighted(value) ? shades[value] : 0));
  context.putImageData(image, 0, 0);
  if ($("pictures").checked) drawPictures();
  for (const point of [hovered, chosen]) if (point >= 0) ring(point);
}

// all entries after the hues are one in the legend
const entryOf = (value) => Math.min(value, hues.length + 1);
const isHighlighted = (value) => !highlighted.size || highlighted.has(entryOf(value));

function radiusOf(point) {
  const zoom = view.scale / Math.min(view.width, view.height);
  const room = Math.sqrt((view.width * view.height) / data.x.length) * 0.3 * Math.sqrt(zoom);
  const radius = Math.min(5, Math.max(1, room));
  return radius * (1 + 0.25 * Math.min(4, Math.log2(imagesOf(point))));
}

function drawPoints(pixels, width, height, shadeOf) {
  const values = data.values[colouring], scale = view.scale * view.ratio;
  const left = width / 2 - view.x * scale, top = height / 2 - view.y * scale;
  for (const [low, high] of inView(20)) {
    for (let point = low; point < high; point++) {
      const shade = shadeOf(values[point]);
      if (!shade) continue;
      const x = data.x[point] * scale + left, y = data.y[point] * scale + top;
      disc(pixels, width, height, x, y, radiusOf(point) * view.ratio, shade);
    }
  }
}

function disc(pixels, width, height, x, y, radius, shade) {
  const first = Math.max(0, Math.ceil(y - radius)), last = Math.min(height - 1, Math.floor(y + radius));
  for (let row = first; row <= last; row++) {
    const half = Math.sqrt(radius * radius - (row - y) * (row - y));
    const from = Math.max(0, Math.ceil(x - half)), to = Math.min(width - 1, Math.floor(x + half));
    if (from <= to) pixels.fill(shade, row * width + from, row * width + to + 1);
  }
}

function drawPictures() {
  const side = 56, taken = new Set();
  context.save();
  context.scale(view.ratio, view.ratio);
  for (const [low, high] of inView(side)) {
    for (let point = low; point < high; point++) {
      if (!thumbnails.has(point) || !isHighlighted(data.values[colouring][point])) continue;
      const [x, y] = screenOf(point);
      const cell = `${Math.floor(x / (side + 8))},${Math.floor(y / (side + 8))}`;
      if (taken.has(cell)) continue;
      taken.add(cell);
      const picture = drawnPicture(point);
      if (!picture.complete || !picture.naturalWidth) continue;
      const shrink = side / Math.max(picture.naturalWidth, picture.naturalHeight);
      const width = picture.naturalWidth * shrink, height = picture.naturalHeight * shrink;
      context.drawImage(picture, x - width / 2, y - height / 2, width, height);
      context.strokeStyle = colourOf(data.values[colouring][point]);
      context.lineWidth = 2;
      context.strokeRect(x - width / 2, y - height / 2, width, height);
    }
  }
  context.restore();
}

function drawnPicture(point) {
  if (!drawnPictures.has(point)) {
    const picture = new Image();
    picture.onload = redraw;
    picture.src = thumbnails.get(point);
    drawnPictures.set(point, picture);
  }
  return drawnPictures.get(point);
}

function ring(point) {
  const [x, y] = screenOf(point);
  context.save();
  context.scale(view.ratio, view.ratio);
  context.beginPath();
  context.arc(x, y, radiusOf(point) + 4, 0, 7);
  context.lineWidth = point === chosen ? 3 : 1.5;
  context.strokeStyle = dark.matches ? "#ffffff" : "#000000";
  context.stroke();
  context.restore();
}

function nearest(x, y) {
  const at = [view.x + (x - view.width / 2) / view.scale, view.y + (y - view.height / 2) / view.scale];
  const far = reach / view.scale;
  let best = -1, least = far * far;
  for (const [low, high] of ranges(at[0] - far, at[1] - far, at[0] + far, at[1] + far)) {
    for (let point = low; point < high; point++) {
      const across = data.x[point] - at[0], down = data.y[point] - at[1];
      const square = across * across + down * down;
      if (square <= least && isHighlighted(data.values[colouring][point])) [best, least] = [point, square];
    }
  }
  return best;
}

// a thumbnail of the page, or the file itself where the uri is one
function pictureOf(point, row) {
  const uri = uriOf(row);
  const isFile = /^(\/|file:)/.test(uri) && !/#\d+(:.*)?$/.test(uri);
  const own = row === data.starts[point] ? thumbnails.get(point) : null;
  const address = own || (isFile ? uri.replace(/^\//, "file:///").replace(/[%?#]/g, encodeURIComponent) : null);
  if (!address) return noPicture();
  const image = new Image();
  image.alt = idOf(row);
  image.onerror = () => image.replaceWith(noPicture());
  image.src = address;
  return image;
}

function noPicture() {
  const box = document.createElement("div");
  box.className = "no-picture";
  box.textContent = "no picture in this page";
  return box;
}

function line(text, kind) {
  const element = document.createElement("div");
  element.textContent = text;
  if (kind) element.className = kind;
  return element;
}

function described(point) {
  const value = data.values[colouring][point];
  const legend = data.colourings[colouring];
  const images = imagesOf(point);
  const same = images === 1 ? "1 image" : `${images.toLocaleString("en")} images of this code`;
  return legend.names[value] ? `${legend.names[value]}; ${same}` : same;
}

function hover(x, y) {
  const point = nearest(x, y), tip = $("tip");
  if (point !== hovered) {
    hovered = point;
    redraw();
    tip.hidden = point < 0;
    if (point >= 0) {
      const row = data.starts[point];
      tip.replaceChildren(pictureOf(point, row), line(idOf(row)), line(described(point)));
    }
  }
  if (point < 0) return;
  const left = x + 16 + tip.offsetWidth > view.width ? x - 16 - tip.offsetWidth : x + 16;
  tip.style.left = `${Math.max(0, left)}px`;
  tip.style.top = `${Math.max(0, Math.min(y + 8, view.height - tip.offsetHeight - 4))}px`;
}

function choose(point) {
  chosen = point;
  redraw();
  if (point < 0) return;
  const first = data.starts[point], images = imagesOf(point);
  const title = document.createElement("h2");
  title.textContent = described(point);
  const grid = document.createElement("div");
  grid.className = "images";
  for (let row = first; row < first + Math.min(images, shownImages); row++) {
    const figure = document.createElement("figure");
    const name = line(idOf(row), "name");
    name.title = uriOf(row);
    figure.append(pictureOf(point, row), name);
    grid.append(figure);
  }
  const rest = images > shownImages ? [line(`and ${(images - shownImages).toLocaleString("en")} more`, "quiet")] : [];
  $("chosen").replaceChildren(title, grid, ...rest);
}

// the row of the next id that has the text in it; a whole id comes before parts of others
function find(text) {
  const sought = new TextEncoder().encode(text);
  if (!sought.length) return -1;
  const whole = searched < 0 ? findFrom(sought, 0, true) : -1;
  const next = whole >= 0 ? whole : findFrom(sought, Math.max(0, searched), false);
  return next >= 0 ? next : findFrom(sought, 0, false);
}

function findFrom(sought, from, whole) {
  const { text, ends } = data.ids;
  for (let at = text.indexOf(sought[0], from); at >= 0; at = text.indexOf(sought[0], at + 1)) {
    let same = 1;
    while (same < sought.length && text[at + same] === sought[same]) same++;
    if (same < sought.length) continue;
    const row = rowAt(ends, at), begin = row ? ends[row - 1] : 0;
    if (at + same > ends[row] || (whole && (at > begin || at + same < ends[row]))) continue;
    searched = ends[row];
    return row;
  }
  return -1;
}

function rowAt(ends, position) {
  let low = 0, high = ends.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (ends[middle] <= position) low = middle + 1;
    else high = middle;
  }
  return low;
}

function goTo(row) {
  const point = rowAt(data.starts, row) - 1;
  [view.x, view.y] = [data.x[point], data.y[point]];
  view.scale = Math.max(view.scale, 12 * Math.min(view.width, view.height));
  choose(point);
  $("status").textContent = idOf(row);
}

function setColouring(number) {
  colouring = number;
  highlighted = new Set();
  showLegend();
}

function showLegend() {
  const { title, names: entries, sizes } = data.colourings[colouring];
  $("legend-title").textContent = title;
  const items = [];
  for (let i = 1; i < Math.min(entries.length, hues.length + 1); i++) items.push([i, entries[i], sizes[i]]);
  const rest = entries.length - 1 - hues.length;
  if (rest > 0) {
    const sum = sizes.slice(hues.length + 1).reduce((a, b) => a + b, 0);
    items.push([hues.length + 1, `${rest.toLocaleString("en")} more`, sum]);
  }
  if (sizes[0]) items.push([0, entries[0], sizes[0]]);
  $("legend").replaceChildren(...items.map(([value, name, size]) => legendItem(value, name, size)));
}

function legendItem(value, name, size) {
  const item = document.createElement("li"), button = document.createElement("button");
  const swatch = document.createElement("i"), text = document.createElement("span");
  const count = document.createElement("small");
  swatch.style.background = colourOf(value);
  text.textContent = name;
  count.textContent = size.toLocaleString("en");
  button.append(swatch, text, count);
  button.setAttribute("aria-pressed", highlighted.has(value));
  button.onclick = () => {
    if (!highlighted.delete(value)) highlighted.add(value);
    button.setAttribute("aria-pressed", highlighted.has(value));
    redraw();
  };
  item.append(button);
  return item;
}

function zoomAt(x, y, factor) {
  const least = 0.5 * Math.min(view.width, view.height), most = 20000 * Math.min(view.width, view.height);
  const scale = Math.min(most, Math.max(least, view.scale * factor));
  view.x += (x - view.width / 2) * (1 / view.scale - 1 / scale);
  view.y += (y - view.height / 2) * (1 / view.scale - 1 / scale);
  view.scale = scale;
  redraw();
}

function move(across, down) {
  view.x -= across / view.scale;
  view.y -= down / view.scale;
  redraw();
}

function showAll() {
  Object.assign(view, { x: 0.5, y: 0.5, scale: 0.94 * Math.min(view.width, view.height) });
  redraw();
}

function resize() {
  const box = canvas.getBoundingClientRect();
  Object.assign(view, { width: box.width, height: box.height, ratio: devicePixelRatio || 1 });
  canvas.width = Math.max(1, Math.round(box.width * view.ratio));
  canvas.height = Math.max(1, Math.round(box.height * view.ratio));
  redraw();
}

function onPointer(event) {
  const box = canvas.getBoundingClientRect();
  return [event.clientX - box.left, event.clientY - box.top];
}

canvas.addEventListener("pointerdown", (event) => {
  canvas.setPointerCapture(event.pointerId);
  pointers.set(event.pointerId, onPointer(event));
  moved = pointers.size > 1;
  pinch = null;
});
canvas.addEventListener("pointermove", (event) => {
  const [x, y] = onPointer(event), before = pointers.get(event.pointerId);
  if (!before) return hover(x, y);
  if (Math.hypot(x - before[0], y - before[1]) < 4 && !moved) return;
  moved = true;
  pointers.set(event.pointerId, [x, y]);
  if (pointers.size === 1) return move(x - before[0], y - before[1]);
  const [[ax, ay], [bx, by]] = pointers.values();
  const now = { x: (ax + bx) / 2, y: (ay + by) / 2, span: Math.hypot(ax - bx, ay - by) };
  if (pinch) {
    move(now.x - pinch.x, now.y - pinch.y);
    zoomAt(now.x, now.y, now.span / pinch.span);
  }
  pinch = now;
});
for (const kind of ["pointerup", "pointercancel"]) {
  canvas.addEventListener(kind, (event) => {
    if (pointers.delete(event.pointerId) && kind === "pointerup" && !moved) choose(nearest(...onPointer(event)));
    pinch = null;
  });
}
canvas.addEventListener("pointerleave", () => hover(-1e6, -1e6));
canvas.addEventListener(
  "wheel",
  (event) => {
    event.preventDefault();
    zoomAt(...onPointer(event), Math.exp(-event.deltaY * (event.deltaMode ? 0.05 : 0.002)));
  },
  { passive: false },
);
canvas.addEventListener("keydown", (event) => {
  const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] };
  if (steps[event.key]) move(...steps[event.key]);
  else if (event.key === "+" || event.key === "=") zoomAt(view.width / 2, view.height / 2, 1.5);
  else if (event.key === "-") zoomAt(view.width / 2, view.height / 2, 1 / 1.5);
  else if (event.key === "0") showAll();
  else return;
  event.preventDefault();
});
$("in").onclick = () => zoomAt(view.width / 2, view.height / 2, 2);
$("out").onclick = () => zoomAt(view.width / 2, view.height / 2, 0.5);
$("all").onclick = showAll;
$("pictures").onchange = redraw;
$("colouring").onchange = (event) => {
  setColouring(Number(event.target.value));
  redraw();
};
$("text").oninput = () => (searched = -1);
$("search").onsubmit = (event) => {
  event.preventDefault();
  const row = find($("text").value);
  if (row >= 0) goTo(row);
  else $("status").textContent = `No id has “${$("text").value}” in it.`;
};
dark.addEventListener("change", () => {
  showLegend();
  redraw();
});
new ResizeObserver(() => data && resize()).observe($("plane"));
start().catch((error) => ($("status").textContent = `The map cannot be shown: ${error.message}`));
