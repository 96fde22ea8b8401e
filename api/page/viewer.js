// The large view of a case, beside the query when there is one.

import { byId, el } from "./dom.js";
import { badge, chips } from "./cards.js";
import { Pane, PRESETS } from "./pane.js";
import * as service from "./service.js";
import * as words from "./words.js";

export class Viewer {
  // onSearch(caseId), onMove(±1) to the neighbouring hit, onClose()
  constructor({ onSearch, onMove, onClose }) {
    Object.assign(this, { onSearch, onMove });
    this.dialog = byId("viewer");
    this.dialog.addEventListener("close", () => { this.dialog.replaceChildren(); onClose(); });
    this.dialog.addEventListener("keydown", (event) => this.onKey(event));
    this.linked = true;
  }

  get open() { return this.dialog.open; }

  close() { this.dialog.close(); }

  // one: the case; hit and answer: set when it is a hit of the search that is shown; match: the slices to open at
  show(one, hit, answer, match = hit?.matches[0]) {
    Object.assign(this, { one, hit, answer });
    const ct = one.modality === "CT";
    this.right = new Pane({
      name: hit ? `Hit ${hit.rank}` : "Case", base: one.image_url, slices: one.attributes.slices, ct,
      onSlice: (n) => this.follow(this.left, n, "hit_slice", "query_slice"), onWindow: (window) => this.windowed(this.left, window),
    });
    this.left = answer?.query.preview && hit ? new Pane({
      name: this.queryName(), base: answer.query.preview, slices: answer.query.slices, ct: answer.query.modality === "CT",
      onSlice: (n) => this.follow(this.right, n, "query_slice", "hit_slice"), onWindow: (window) => this.windowed(this.right, window),
    }) : null;
    this.dialog.replaceChildren(this.head(), el("div.panes", {}, this.left?.element, this.right.element), this.side());
    if (!this.dialog.open) this.dialog.showModal();
    const middle = Math.floor((one.attributes.slices - 1) / 2);
    this.right.move(match ? match.hit_slice : middle, false);
    this.left?.move(match ? match.query_slice : 0, false);
    this.dialog.querySelector(".close").focus();
  }

  queryName() {
    const id = this.answer.query.case_id;
    return id && this.answer.query.preview.includes(`/cases/${id}/`) ? `Query: case ${id}` : "Your study";
  }

  head() {
    const { one, hit } = this;
    const ct = one.modality === "CT" || this.left?.ct;
    return el("header", {},
      el("h2", { id: "viewer-title" }, words.heading(one)),
      badge(one.source),
      hit ? el("p.similar", {}, `similarity ${hit.similarity.toFixed(3)}, more alike than ${words.percentile(hit.percentile)} % of random pairs`) : null,
      ct ? this.presets() : null,
      el("nav", {},
        hit ? el("button.quiet", { type: "button", "aria-label": "Previous hit", title: "Previous hit (p)", onclick: () => this.onMove(-1) }, "‹") : null,
        hit ? el("button.quiet", { type: "button", "aria-label": "Next hit", title: "Next hit (n)", onclick: () => this.onMove(1) }, "›") : null,
        el("button.quiet.close", { type: "button", "aria-label": "Close", title: "Close (Esc)", onclick: () => this.close() }, "✕")));
  }

  presets() {
    return el("div.presets", { role: "group", "aria-label": "Window" }, PRESETS.map((preset, n) =>
      el("button.quiet", { type: "button", "aria-pressed": `${!preset.window}`, "data-window": preset.window, title: `${preset.window || "the file’s own"} (${n + 1})`, onclick: () => this.preset(preset.window) }, preset.name)));
  }

  preset(window) {
    for (const pane of [this.left, this.right]) if (pane?.ct) pane.setWindow(window, false);
    this.markPreset(window);
  }

  // A window that was dragged is no preset.
  markPreset(window) {
    for (const button of this.dialog.querySelectorAll(".presets button")) button.setAttribute("aria-pressed", `${button.dataset.window === window}`);
  }

  windowed(other, window) {
    if (other?.ct) other.setWindow(window, false);
    this.markPreset(window);
  }

  side() {
    const { one, hit } = this;
    const copied = el("span.copied", { role: "status" });
    const copy = async (text) => {
      await navigator.clipboard.writeText(text);
      copied.textContent = "Copied";
    };
    return el("aside", {},
      el("div.actions", {},
        el("button.main", { type: "button", onclick: () => { this.close(); this.onSearch(one.case_id); } }, "Search from this case"),
        el("button", { type: "button", onclick: () => copy(words.citation(one, hit, this.answer)) }, "Copy citation"), copied),
      this.matches(),
      el("h3", {}, "Labels"),
      one.labels.length ? chips(one, 40) : el("p.none", {}, "None on file"),
      el("h3", {}, "Report"),
      one.report ? el("p.report", {}, one.report) : el("p.none", {}, "None on file"),
      el("h3", {}, "Case"),
      this.table(),
      one.warnings.length ? [el("h3", {}, "Quality"), el("ul.warnings", {}, one.warnings.map((text) => el("li", {}, text)))] : null);
  }

  matches() {
    const { hit, one, answer } = this;
    if (!hit || one.attributes.slices < 2 && answer.query.slices < 2) return null;
    const tick = el("input", { type: "checkbox", checked: this.linked, onchange: (event) => { this.linked = event.target.checked; } });
    return el("section", {},
      el("h3", {}, "Slices that match"),
      el("ul.matches", {}, hit.matches.map((match) =>
        el("li", {}, el("button", { type: "button", onclick: () => this.jump(match) },
          el("span", {}, words.matchHint(match, answer.query)), el("span.num", {}, match.similarity.toFixed(3)))))),
      this.left && this.left.slices > 1 && this.right.slices > 1 ? el("label.tick", {}, tick, " Scroll both together") : null);
  }

  jump(match) {
    this.left?.move(match.query_slice, false);
    this.right.move(match.hit_slice, false);
  }

  // Keep the other pane where it corresponds: from the nearest matched pair, at the ratio of the two stacks.
  follow(other, n, mine, theirs) {
    if (!this.linked || !other || other.slices < 2 || !this.hit?.matches.length) return;
    const near = this.hit.matches.reduce((best, match) => (Math.abs(match[mine] - n) < Math.abs(best[mine] - n) ? match : best));
    const from = other === this.right ? this.left : this.right;
    other.move(near[theirs] + (n - near[mine]) * (other.slices - 1) / Math.max(1, from.slices - 1), false);
  }

  table() {
    const { one } = this;
    const rows = {
      Case: one.case_id, Kind: [words.kind(one.kind), words.shape(one)].filter(Boolean).join(", "),
      Patient: words.person(one.attributes) || "not stated", View: [one.attributes.view, one.attributes.laterality].filter(Boolean).join(" "),
      Scanner: one.attributes.manufacturer, Year: one.attributes.study_year ? `${one.attributes.study_year}` : "",
      Study: one.study_uid, Series: one.series_uid, "Same pixels as": one.duplicate_of,
    };
    return el("dl.facts-table", {}, Object.entries(rows).filter(([, value]) => value).map(([name, value]) => [el("dt", {}, name), el("dd", {}, value)]));
  }

  onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const slider = event.target.matches?.("input[type=range]");
    const act = {
      j: () => this.right.step(1), k: () => this.right.step(-1), n: () => this.hit && this.onMove(1), p: () => this.hit && this.onMove(-1),
      ...(slider ? {} : { ArrowDown: () => this.right.step(1), ArrowUp: () => this.right.step(-1), ArrowRight: () => this.right.step(1), ArrowLeft: () => this.right.step(-1) }),
    }[event.key] || (/^[1-5]$/.test(event.key) ? () => this.preset(PRESETS[event.key - 1].window) : null);
    if (!act) return;
    event.preventDefault();
    event.stopPropagation();
    act();
  }
}
