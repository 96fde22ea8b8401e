// What narrows the gallery and the answers.

import { byId, el } from "./dom.js";
import * as words from "./words.js";

const WORDS = { modality: words.modality, body_part: words.title, kind: words.kind, source: words.originWords };

// Fill the selects from the gallery's facets, keeping what is chosen.
export function fill(facets) {
  for (const select of document.querySelectorAll("[data-filter]")) {
    const name = select.dataset.filter;
    const chosen = select.value;
    const options = (facets[name] || []).map(({ value, cases }) => el("option", { value }, `${WORDS[name](value)} (${cases.toLocaleString("en")})`));
    select.replaceChildren(el("option", { value: "" }, "Any"), ...options);
    select.value = [...select.options].some((option) => option.value === chosen) ? chosen : "";
    select.disabled = options.length === 0;
  }
}

export function chosen() {
  const pairs = [...document.querySelectorAll("[data-filter]")].filter((select) => select.value);
  return Object.fromEntries(pairs.map((select) => [select.dataset.filter, select.value]));
}

export function choose(name, value) {
  document.querySelector(`[data-filter="${name}"]`).value = value;
}

export function options() {
  const filters = chosen();
  return {
    k: byId("f-k").value, same_patient: byId("f-patient").value, group: byId("f-group").value, rerank: byId("f-rerank").checked,
    ...(Object.keys(filters).length ? { filters } : {}),
  };
}

export function onChange(act) {
  byId("filter-form").addEventListener("change", act);
  byId("filter-form").addEventListener("reset", () => setTimeout(act));
  byId("filter-form").addEventListener("submit", (event) => event.preventDefault());
}
