// One image or stack of slices on black: wheel, slider, keys, windowing. Used by the viewer and the query panel.

import { el } from "./dom.js";
import * as service from "./service.js";

export const PRESETS = [
  { name: "As stored", window: "" },
  { name: "Lung", window: "-600,1500" },
  { name: "Bone", window: "400,1800" },
  { name: "Soft tissue", window: "40,400" },
  { name: "Brain", window: "40,80" },
];
const STEP_PIXELS = 24; // of wheel movement per slice, for trackpads
const WIDTH_PER_PIXEL = 4; // HU per pixel of drag

export class Pane {
  // base: URL of the image route; slices: how many; ct: whether windows are in HU; onSlice(n) tells of a move
  constructor({ name, base, slices, ct = false, size = 1024, onSlice = () => {}, onWindow = () => {} }) {
    Object.assign(this, { base, slices, ct, size, onSlice, onWindow });
    this.slice = 0;
    this.window = "";
    this.tone = { brightness: 1, contrast: 1 };
    this.wheel = 0;
    this.image = el("img.slice", { alt: name, draggable: false });
    this.where = el("output.where");
    this.slider = el("input", { type: "range", min: "0", max: `${Math.max(0, slices - 1)}`, value: "0", "aria-label": `Slice of ${name}` });
    this.trouble = el("p.trouble", { role: "status", hidden: true });
    this.stage = el("div.stage", {}, this.image, this.where, this.trouble);
    this.element = el("figure.pane", { "data-slices": `${slices}` }, el("figcaption", {}, name), this.stage, slices > 1 ? this.slider : null);
    this.listen();
  }

  listen() {
    this.slider.addEventListener("input", () => this.move(Number(this.slider.value)));
    this.stage.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.onDrag(event));
    this.stage.addEventListener("dblclick", () => this.setWindow(""));
  }

  move(n, tell = true) {
    const slice = Math.max(0, Math.min(this.slices - 1, Math.round(n)));
    const moved = slice !== this.slice;
    this.slice = slice;
    this.slider.value = `${slice}`;
    this.draw();
    if (moved && tell) this.onSlice(slice);
  }

  step(by) { this.move(this.slice + by); }

  setWindow(window, tell = true) {
    this.window = window;
    this.tone = { brightness: 1, contrast: 1 };
    this.paintTone();
    this.draw();
    if (tell) this.onWindow(window);
  }

  url(slice = this.slice) {
    return service.imageUrl(this.base, { slice, window: this.window, size: this.size });
  }

  // The newest request wins; while it loads the slice before stays, so that scrolling never flashes.
  async draw() {
    this.caption();
    const wanted = this.url();
    if (this.wanted === wanted) return;
    this.wanted = wanted;
    if (this.loading) return;
    this.loading = true;
    try {
      for (let url = null; url !== this.wanted;) {
        url = this.wanted;
        await this.load(url);
      }
    } finally {
      this.loading = false;
    }
    this.fetchNeighbours();
  }

  async load(url) {
    const next = new Image();
    try {
      next.src = await service.picture(url);
      await next.decode();
      if (this.image.src.startsWith("blob:")) URL.revokeObjectURL(this.image.src);
      this.image.src = next.src;
      this.trouble.hidden = true;
    } catch {
      if (url !== this.wanted) return;
      this.trouble.textContent = await service.whyNot(url);
      this.trouble.hidden = false;
    }
  }

  fetchNeighbours() {
    if (service.hasKey()) return;
    for (const n of [this.slice + 1, this.slice - 1, this.slice + 2]) {
      if (n >= 0 && n < this.slices) new Image().src = this.url(n);
    }
  }

  caption() {
    const parts = [];
    if (this.slices > 1) parts.push(`${this.slice + 1} / ${this.slices}`);
    if (this.window) {
      const [centre, width] = this.window.split(",").map(Number);
      parts.push(`W ${Math.round(width)}  L ${Math.round(centre)}`);
    }
    this.where.textContent = parts.join("   ");
  }

  onWheel(event) {
    if (this.slices < 2 || event.ctrlKey) return;
    event.preventDefault();
    this.wheel += event.deltaMode ? event.deltaY * STEP_PIXELS : event.deltaY;
    const steps = Math.trunc(this.wheel / STEP_PIXELS);
    this.wheel -= steps * STEP_PIXELS;
    if (steps) this.step(Math.sign(steps) * Math.min(3, Math.abs(steps)));
  }

  // Right is wider, down is brighter: as on a workstation. CT is windowed in HU by the service, the rest on screen.
  onDrag(start) {
    if (start.button !== 0) return;
    start.preventDefault();
    const [centre, width] = (this.window || "40,400").split(",").map(Number);
    const tone = { ...this.tone };
    const move = (event) => {
      const [dx, dy] = [event.clientX - start.clientX, event.clientY - start.clientY];
      if (Math.abs(dx) + Math.abs(dy) < 4) return;
      if (this.ct) {
        this.window = `${Math.round(centre - dy * WIDTH_PER_PIXEL / 2)},${Math.max(1, Math.round(width + dx * WIDTH_PER_PIXEL))}`;
        this.draw();
        this.onWindow(this.window);
      } else {
        this.tone = { brightness: Math.max(0.2, tone.brightness + dy / 300), contrast: Math.max(0.2, tone.contrast - dx / 300) };
        this.paintTone();
      }
    };
    this.stage.setPointerCapture(start.pointerId);
    this.stage.addEventListener("pointermove", move);
    this.stage.addEventListener("pointerup", () => this.stage.removeEventListener("pointermove", move), { once: true });
  }

  paintTone() {
    const { brightness, contrast } = this.tone;
    this.image.style.filter = brightness === 1 && contrast === 1 ? "" : `brightness(${brightness}) contrast(${contrast})`;
  }
}
