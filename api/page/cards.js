// Cases as cards: one for the gallery, one for hits.

import { el, styled } from "./dom.js";
import * as service from "./service.js";
import * as words from "./words.js";

const MOST_CHIPS = 3;

// An <img> with its alternative text; a broken one says so instead of showing nothing.
export function thumbnail(one) {
  const image = el("img", { alt: `${words.heading(one)}, ${words.kind(one.kind).toLowerCase()}`, loading: "lazy", decoding: "async" });
  service.picture(one.thumbnail_url).then((url) => { image.src = url; }, () => image.classList.add("missing"));
  image.addEventListener("error", () => image.classList.add("missing"));
  return image;
}

export function chips(one, most = MOST_CHIPS) {
  const shown = one.labels.slice(0, most).map((label) =>
    el("span.chip", { title: `${label.name}: ${label.value}` }, el("span.chip-name", {}, label.name), ` ${label.value}`));
  const rest = one.labels.length - shown.length;
  return el("div.chips", {}, shown, rest > 0 ? el("span.chip.rest", { title: rest === 1 ? "one more label" : `${rest} more labels` }, `+${rest}`) : null);
}

export const badge = (source) => source
  ? el(`span.badge${words.origin(source) ? `.${words.origin(source)}` : ""}`, { title: words.originTitle(source) }, words.originWords(source))
  : null;

function frame(one, ...over) {
  const stack = one.attributes.slices > 1;
  return el(`div.frame${stack ? ".stack" : ""}`, {}, thumbnail(one),
    stack ? el("span.count", { title: "slices" }, `${one.attributes.slices}`) : null, ...over);
}

function facts(one) {
  const person = words.person(one.attributes);
  return el("p.who", {}, [words.kind(one.kind), person].filter(Boolean).join(" · "));
}

const classOf = (one) => (words.origin(one.source) === "phantom" ? ".phantom" : "");

// A case of the gallery: clicking it searches from it.
export function galleryCard(one, { onSearch, onView }) {
  return el(`article.card${classOf(one)}`, { "data-case": one.case_id },
    el("button.face", { type: "button", "aria-label": `Find cases like this: ${words.heading(one)}`, onclick: () => onSearch(one.case_id) },
      frame(one, el("span.hover", {}, "Find similar"))),
    el("div.text", {},
      el("h3", {}, words.heading(one)), facts(one), chips(one),
      el("p.foot", {}, badge(one.source), el("button.quiet.small", { type: "button", onclick: () => onView(one.case_id) }, "View"))));
}

// A hit: clicking it opens the viewer.
export function hitCard(hit, query, { onSearch, onView }) {
  const match = hit.matches[0];
  const label = `Rank ${hit.rank}: ${words.heading(hit)}, similarity ${hit.similarity.toFixed(3)}`;
  const bar = styled(el("span.fill"), { width: `${Math.max(0, Math.min(1, hit.similarity)) * 100}%` });
  return el(`article.card.hit${classOf(hit)}`, { "data-case": hit.case_id },
    el("button.face", { type: "button", "aria-label": label, onclick: () => onView(hit.case_id) },
      frame(hit, el("span.rank", {}, `${hit.rank}`))),
    el("div.text", {},
      el("div.score", { title: "Cosine similarity, and the share of random pairs of this gallery (for a text: of texts and cases) that are less alike" },
        el("strong", {}, hit.similarity.toFixed(3)), el("span.track", {}, bar), el("span.pct", {}, `P${words.percentile(hit.percentile)}`)),
      hit.parts ? el("p.parts", {}, words.parts(hit.parts)) : null,
      el("h3", {}, words.heading(hit)), facts(hit),
      match && hit.attributes.slices > 1 ? el("button.match", { type: "button", title: "Look at these slices", onclick: () => onView(hit.case_id, match) }, words.matchHint(match, query)) : null,
      chips(hit),
      el("p.foot", {}, badge(hit.source), el("button.quiet.small", { type: "button", onclick: () => onSearch(hit.case_id) }, "Similar"))));
}
