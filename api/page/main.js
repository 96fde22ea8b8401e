// The page: what is asked, what is shown, where the focus is. Everything else is next door.

import * as browse from "./browse.js";
import { hitCard } from "./cards.js";
import { byId, el, show } from "./dom.js";
import * as filters from "./filters.js";
import * as intake from "./intake.js";
import * as keys from "./keys.js";
import * as query from "./query.js";
import * as service from "./service.js";
import { Viewer } from "./viewer.js";
import * as words from "./words.js";

let state = null; // the gallery's
let asked = null; // {files} | {caseId} | {text}, or text beside files or caseId
let answer = null;
let answered = null; // what was asked for the answer that is shown
let running = null; // AbortController of the search under way

const viewer = new Viewer({ onSearch: searchCase, onMove: moveHit, onClose: () => setHash(asked?.caseId ? `like=${asked.caseId}` : "") });
const handlers = { onSearch: searchCase, onView: view, onNarrow: refresh };

const small = matchMedia("(max-width: 720px)");
const narrow = () => matchMedia("(max-width: 60rem)").matches;

function setHash(text) {
  const hash = text ? `#${text}` : "";
  if (location.hash !== hash) history.replaceState(null, "", `${location.pathname}${hash}`);
}

// What went wrong: below the bar wherever the page is scrolled to, until the next act or a click.
function notice(text) {
  const close = () => el("button", { type: "button", "aria-label": "Dismiss", onclick: () => notice("") }, "✕");
  byId("notice").replaceChildren(...(text ? [el("div.notice.problem", {}, el("p", {}, text), close())] : []));
}

// What must be known of the answer that is shown; it stays as long as the answer does.
function aboutAnswer({ stale = false } = {}) {
  const told = [];
  if (stale) told.push("Below is still the answer to the search before, not to the one that failed.");
  if (answer?.no_confident_match && answer.hits.length) {
    told.push(`No confident match: these are the least unlike, not alike. ${answer.reasons.join(" ")}`);
  }
  told.push(...(answer?.cautions ?? []));
  if (answered?.files?.length > 1) told.push(...answer.query.warnings);
  byId("about-answer").replaceChildren(...told.map((text) => el("p.notice.doubt", {}, text)));
}

function searchCase(caseId) {
  setHash(`like=${caseId}`);
  return search({ caseId });
}

async function search(what) {
  asked = what;
  running?.abort();
  const mine = running = new AbortController();
  notice("");
  const files = what.files?.length || 0;
  query.busy(files ? `Reading ${words.plural(files, "file")} and searching…` : "Searching…");
  try {
    answer = await service.search(what, filters.options(), mine.signal);
    answered = what;
    paintAnswer();
  } catch (problem) {
    if (problem.name !== "AbortError") failed(problem, what);
  } finally {
    if (running === mine) query.busy("");
  }
}

// The answer before stays, said to be of the query before: filters go on narrowing that one.
function failed(problem, what) {
  asked = answered;
  setHash(asked?.caseId ? `like=${asked.caseId}` : "");
  const why = words.refusal(problem, what.files);
  notice(answer ? `${why} What is shown is still the answer to the search before.` : why);
  if (answer) aboutAnswer({ stale: true });
}

function paintAnswer() {
  const described = state?.accepts_text ? { text: answered.text, textWeight: answered.textWeight, fusion: answered.fusion } : null;
  query.paint(answer.query, { onClear: clear, onView: view, described, onDescribe: describe });
  const n = answer.hits.length;
  if (narrow()) byId("results").scrollIntoView();
  else scrollTo({ top: 0 });
  byId("title").textContent = n ? `${words.plural(n, "most similar case", "most similar cases")}` : "No case qualifies";
  byId("subtitle").textContent = [
    `of ${words.plural(answer.gallery_size, "case")}`, answer.exhaustive ? "every case compared" : `plan ${answer.plan}, ${answer.candidates} compared`,
    answer.composition?.told,
    `${answer.took_ms < 10 ? answer.took_ms.toFixed(1) : Math.round(answer.took_ms)} ms`,
  ].filter(Boolean).join(" · ");
  byId("grid").replaceChildren(n
    ? el("div.cards.hits", {}, answer.hits.map((hit) => hitCard(hit, answer.query, handlers)))
    : el("p.none", {}, "Nothing on file passes the filters. Clear one of them, or show the same patient’s studies."));
  aboutAnswer();
  show(byId("more"), false);
}

function describe({ text, textWeight, fusion }) {
  const { files, caseId } = answered;
  search(text ? { files, caseId, text, textWeight, fusion } : { files, caseId });
}

async function clear() {
  running?.abort();
  asked = answer = answered = null;
  setHash("");
  notice("");
  aboutAnswer();
  query.paint(null, {});
  await browseGallery();
}

async function browseGallery() {
  try {
    await browse.paint(state, handlers);
  } catch (problem) {
    notice(problem.message);
  }
}

function refresh() {
  return asked ? search(asked) : browseGallery();
}

async function view(caseId, match) {
  try {
    const one = await service.caseOf(caseId);
    setHash(`case=${caseId}`);
    viewer.show(one, answer?.hits.find((hit) => hit.case_id === caseId), answer, match);
  } catch (problem) {
    if (viewer.open) viewer.close(); // it would cover the notice
    notice(problem.message);
  }
}

function moveHit(by) {
  const at = answer.hits.findIndex((hit) => hit.case_id === viewer.one.case_id);
  const next = answer.hits[at + by];
  if (next) view(next.case_id);
}

function follow() {
  const [name, value] = location.hash.slice(1).split("=");
  if (name === "case" && value) return view(decodeURIComponent(value));
  if (name === "like" && value) return search({ caseId: decodeURIComponent(value) });
  return null;
}

function listen() {
  filters.onChange(refresh);
  intake.listen((files) => { setHash(""); search({ files }); });
  keys.listen({ viewer, handlers });
  byId("home").addEventListener("click", (event) => { event.preventDefault(); clear(); });
  byId("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    const text = byId("ask-text").value.trim();
    if (!text) return;
    const sentence = state?.accepts_text ? !/^[0-9a-z]{16}$/.test(text) : /\s/.test(text); // refused with the reason
    if (sentence) { setHash(""); search({ text }); }
    else searchCase(text);
  });
  byId("theme").addEventListener("click", () => {
    const dark = getComputedStyle(document.documentElement).getPropertyValue("--is-dark").trim() === "1";
    setTheme(dark ? "light" : "dark");
  });
  addEventListener("hashchange", follow);
  small.addEventListener("change", fold);
}

function fold() {
  byId("filters").open = !small.matches;
}

function setTheme(theme) {
  document.documentElement.dataset.theme = theme;
  localStorage.setItem("precedent-theme", theme);
}

function askForKey() {
  return new Promise((done) => {
    const dialog = byId("key-dialog");
    dialog.showModal();
    dialog.addEventListener("close", () => {
      service.keepKey(byId("key").value.trim());
      done();
    }, { once: true });
  });
}

function paintState() {
  byId("facts").textContent = `${words.plural(state.size, "case")} · encoder ${state.encoder.name}`;
  byId("facts").title = state.encoder.fingerprint;
  byId("ask-text").placeholder = state.accepts_text ? "Describe a finding, or type a case id" : "Type a case id";
  filters.fill(state.facets);
}

async function start() {
  const theme = localStorage.getItem("precedent-theme");
  if (theme) document.documentElement.dataset.theme = theme;
  fold();
  service.onKeyNeeded(askForKey);
  listen();
  try {
    state = await service.gallery();
  } catch (problem) {
    notice(problem.message);
  }
  if (state) {
    paintState();
    if (!location.hash.startsWith("#like=")) await browseGallery();
    await follow();
  }
  document.body.dataset.ready = "";
}

start();
