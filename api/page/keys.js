// The keyboard on the page. The viewer has its own.

import { byId } from "./dom.js";

const typing = (target) => target.matches?.("input:not([type=checkbox]):not([type=range]), select, textarea");
const cards = () => [...document.querySelectorAll(".card")];

export function listen({ viewer, handlers }) {
  byId("help").addEventListener("click", () => byId("keys").showModal());
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape" && typing(event.target)) event.target.blur();
    if (typing(event.target) || (document.querySelector("dialog[open]") && event.key !== "?")) return;
    const act = action(event.key, handlers);
    if (!act || (viewer.open && event.key !== "?")) return;
    event.preventDefault();
    act();
  });
}

function action(key, handlers) {
  const here = document.activeElement?.closest?.(".card");
  const simple = {
    "/": () => byId("ask-text").select(),
    "?": () => { if (!byId("keys").open) byId("keys").showModal(); },
    o: () => byId("files").click(),
    v: here && (() => handlers.onView(here.dataset.case)),
    s: here && (() => handlers.onSearch(here.dataset.case)),
  }[key];
  if (simple) return simple;
  const target = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: "down", ArrowUp: "up" }[key];
  if (!target || (!here && key !== "ArrowRight" && key !== "ArrowDown")) return null;
  return () => (here ? next(here, target) : cards()[0])?.querySelector(".face").focus();
}

// The neighbour in reading order, or the nearest one in the row above or below.
function next(here, target) {
  const all = cards();
  if (typeof target === "number") return all[all.indexOf(here) + target];
  const box = here.getBoundingClientRect();
  const sign = target === "down" ? 1 : -1;
  const reach = (card) => {
    const other = card.getBoundingClientRect();
    const away = (other.top - box.top) * sign;
    return away > box.height / 2 ? away * 4 + Math.abs(other.left - box.left) : Infinity;
  };
  const best = all.reduce((found, card) => (reach(card) < reach(found) ? card : found), here);
  return reach(best) < Infinity ? best : null;
}
