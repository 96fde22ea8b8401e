// The panel that shows what was asked.

import { byId, el, show } from "./dom.js";
import { Pane } from "./pane.js";
import * as words from "./words.js";

// query: the answer's; onClear: back to the gallery; onView(caseId): look at a query that is on file
// described: {text, textWeight, fusion} beside the image, null where the gallery takes no text; onDescribe gets the next
export function paint(query, { onClear, onView, described = null, onDescribe }) {
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
    query.kind !== "text" && described ? descriptionForm(described, onDescribe) : "",
    query.warnings.length ? el("ul.warnings", {}, query.warnings.map((text) => el("li", {}, text))) : "",
    el("div.actions", {},
      el("button", { type: "button", onclick: onClear }, "New search"),
      query.case_id ? el("button.quiet", { type: "button", onclick: () => onView(query.case_id) }, "View") : ""),
  );
}

// A sentence beside the image: what it says, how much it counts, how the two are put together.
function descriptionForm({ text = "", textWeight = 0.5, fusion = "sum" }, onDescribe) {
  const words = el("input", { id: "also-text", type: "search", maxlength: "4000", autocomplete: "off", placeholder: "Such as: pleural effusion" });
  words.value = text;
  const share = el("input", { id: "also-share", type: "range", min: "0", max: "100", step: "5", value: `${Math.round(textWeight * 100)}` });
  const told = el("output", { for: "also-share" });
  const tell = () => { told.textContent = `text counts ${share.value} %`; };
  const how = el("select", { id: "also-fusion" }, el("option", { value: "sum" }, "As one weighted sum"), el("option", { value: "rrf" }, "As two rankings"));
  how.value = fusion;
  const ask = (event) => {
    event?.preventDefault();
    onDescribe({ text: words.value.trim(), textWeight: Number(share.value) / 100, fusion: how.value });
  };
  const again = () => { if (words.value.trim()) ask(); };
  share.addEventListener("input", tell);
  share.addEventListener("change", again);
  how.addEventListener("change", again);
  tell();
  return el("form.describe", { onsubmit: ask },
    el("label", { for: "also-text" }, "And described as"), words,
    el("label.unseen", { for: "also-share" }, "How much the text counts"), share, told,
    el("label.unseen", { for: "also-fusion" }, "How image and text are put together"), how,
    el("button", {}, "Search with both"));
}

export function busy(text) {
  byId("busy").textContent = text || "";
  show(byId("busy"), Boolean(text));
  document.body.classList.toggle("waiting", Boolean(text));
}
