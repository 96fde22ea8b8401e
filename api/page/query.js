// The panel that shows what was asked.

import { byId, el, show } from "./dom.js";
import { Pane } from "./pane.js";
import * as words from "./words.js";

// query: the answer's; onClear: back to the gallery; onView(caseId): look at a query that is on file
export function paint(query, { onClear, onView }) {
  const panel = byId("asked");
  show(byId("drop"), !query);
  show(panel, Boolean(query));
  panel.replaceChildren();
  if (!query) return;
  const about = [words.modality(query.modality), query.body_part && words.title(query.body_part), query.slices > 1 && words.plural(query.slices, "slice")];
  if (query.preview) {
    const pane = new Pane({ name: query.case_id && query.preview.includes("/cases/") ? `Case ${query.case_id}` : "Your study", base: query.preview, slices: query.slices, ct: query.modality === "CT", size: 512 });
    panel.append(pane.element);
    pane.move(query.kind === "volume" ? Math.floor(query.slices / 2) : 0);
  }
  panel.append(
    el("p.about", {}, query.kind === "text" ? "Description" : about.filter(Boolean).join(" · ")),
    query.kind !== "text" && !query.patient_known && !query.case_id ? el("p.hint", {}, "No patient id in these files: other studies of the same patient can’t be left out.") : "",
    query.warnings.length ? el("ul.warnings", {}, query.warnings.map((text) => el("li", {}, text))) : "",
    el("div.actions", {},
      el("button", { type: "button", onclick: onClear }, "New search"),
      query.case_id ? el("button.quiet", { type: "button", onclick: () => onView(query.case_id) }, "View") : ""),
  );
}

export function busy(text) {
  byId("busy").textContent = text || "";
  show(byId("busy"), Boolean(text));
  document.body.classList.toggle("waiting", Boolean(text));
}
