"use strict";

const $ = (id) => document.getElementById(id);

// One picture at full size, with its path and class. It has a place in the history, so that "back"
// closes it.
const viewer = {
  hits: [],
  at: 0,
  shown: 0, // only the last picture that was opened is shown
  originals: true,

  open(hits, at) {
    history.pushState({ ...history.state, view: hits[at].id }, "");
    this.show(hits, at);
  },

  show(hits, at) {
    this.hits = hits;
    this.at = at;
    if (!$("viewer").open) $("viewer").showModal();
    this.fill();
  },

  // After "back" or "forward": open or closed, as this entry of the history says.
  restore(hits) {
    const at = hits.findIndex((hit) => hit.id === history.state?.view);
    if (at >= 0) this.show(hits, at);
    else if ($("viewer").open) $("viewer").close();
  },

  step(by) {
    if (!this.hits[this.at + by]) return;
    this.at += by;
    history.replaceState({ ...history.state, view: this.hits[this.at].id }, "");
    this.fill();
  },

  async fill() {
    const hit = this.hits[this.at];
    const mine = ++this.shown;
    $("viewed").replaceChildren(...described(hit));
    $("note").textContent = "";
    $("previous").disabled = this.at === 0;
    $("next").disabled = this.at === this.hits.length - 1;
    $("alone").hidden = !this.originals;
    $("alone").href = address("original", hit.id);
    $("large").alt = alternative(hit);
    $("large").hidden = false;
    $("large").src = address("image", hit.id); // until the original is there
    if (!this.originals) return;
    const problem = await this.original(hit, mine);
    if (mine === this.shown) $("note").textContent = problem;
  },

  // Show the original; return why that is impossible, or "".
  async original(hit, mine) {
    let response;
    try {
      response = await fetch(address("original", hit.id));
    } catch {
      return "The server does not answer.";
    }
    if (!response.ok) {
      const answer = await response.json().catch(() => ({}));
      if (mine === this.shown) $("alone").hidden = true;
      return answer.error || `the server answered ${response.status}`;
    }
    const url = URL.createObjectURL(await response.blob());
    const loaded = new Image();
    loaded.src = url;
    try {
      await loaded.decode();
    } catch {
      URL.revokeObjectURL(url);
      const kind = response.headers.get("content-type");
      return `This browser cannot show ${kind}: this is a thumbnail, "Open the file" saves the file.`;
    }
    if (mine !== this.shown) return "";
    if ($("large").src.startsWith("blob:")) URL.revokeObjectURL($("large").src);
    $("large").hidden = false;
    $("large").src = url;
    return "";
  },
};

$("large").addEventListener("load", () => sharpen($("large")));
$("large").addEventListener("error", () => { $("large").hidden = true; });
$("previous").addEventListener("click", () => viewer.step(-1));
$("next").addEventListener("click", () => viewer.step(1));
$("close").addEventListener("click", () => $("viewer").close());
$("like").addEventListener("click", () => searchForId(viewer.hits[viewer.at].id));
$("viewer").addEventListener("close", () => {
  viewer.shown++;
  $("large").removeAttribute("src");
  if (history.state?.view) history.back();
});
$("viewer").addEventListener("click", (event) => {
  if (event.target === $("viewer")) $("viewer").close(); // beside the picture
});
$("viewer").addEventListener("keydown", (event) => {
  if (event.key === "ArrowLeft") viewer.step(-1);
  if (event.key === "ArrowRight") viewer.step(1);
});
