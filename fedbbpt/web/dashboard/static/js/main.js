// Shows the view that the address names, and keeps it up to date.

import { compareView } from "./compare_view.js";
import { h, say } from "./dom.js";
import { time } from "./figures.js";
import { route } from "./routes.js";
import { RunView } from "./run_view.js";
import { liveList, pastList } from "./runs_view.js";
import { follow, get } from "./source.js";
import { RunState } from "./state.js";

const view = document.getElementById("view");
const banner = document.getElementById("banner");
const chosen = []; // past runs that are ticked
let leave = () => {};

function warn(text) {
  banner.hidden = !text;
  say(banner, text ?? "");
}

const STOPPED = "The dashboard does not answer. What you see is its last word; the page goes on by itself when it is back.";

function problem({ what, where, fix, since, again }) {
  const cause = [where, what].filter(Boolean).join(": ");
  if (again === false) return `The coordinator refuses: ${cause}${fix ? ` (${fix})` : ""}.`;
  const when = since ? ` since ${time(since)}` : "";
  return `The coordinator does not answer${when} (${cause}). What you see is its last word; trying again.`;
}

function showRun(name) {
  const state = new RunState(), page = new RunView();
  view.replaceChildren(h("p", { class: "loading" }, "Asking the coordinator…"));
  const stop = follow(`/api/run?name=${encodeURIComponent(name)}`, (item) => {
    state.take(item);
    warn(state.problem ? problem(state.problem) : null);
    if (!state.run) return;
    document.title = `${state.run.name} · fedbbpt`;
    if (!page.element.isConnected) view.replaceChildren(page.element);
    page.update(state);
  }, (lost) => { if (lost) warn(STOPPED); else if (!state.problem) warn(null); });
  return () => { stop(); page.close(); };
}

async function showPast(name) {
  const state = new RunState(), page = new RunView();
  state.take(await get(`/api/past/run?name=${encodeURIComponent(name)}`));
  document.title = `${name} · fedbbpt`;
  view.replaceChildren(page.element);
  page.update(state);
  return () => page.close();
}

async function showComparison(first, second) {
  const compared = await get(`/api/past/compare?first=${encodeURIComponent(first)}&second=${encodeURIComponent(second)}`);
  const page = compareView(compared);
  document.title = `${first} and ${second} · fedbbpt`;
  view.replaceChildren(page.element);
  page.show();
  return () => {};
}

async function showAll(site) {
  document.title = "Runs · fedbbpt";
  const live = site.coordinator && h("div");
  const past = site.folder && h("div");
  let stop = () => {};
  view.replaceChildren(h("div", { class: "lists" },
    live && h("section", { class: "card list", id: "live" }, h("h1", null, "Runs of the coordinator"), live),
    past && h("section", { class: "card list", id: "past" }, h("h1", null, "Past runs"), past)));
  if (past) past.replaceChildren(pastList(await get("/api/past"), chosen));
  if (live) {
    live.replaceChildren(h("p", { class: "loading" }, "Asking the coordinator…"));
    stop = follow("/api/runs", ({ runs, problem: trouble }) => {
      warn(trouble ? problem(trouble) : null);
      if (runs) live.replaceChildren(liveList(runs));
    }, (lost) => warn(lost ? STOPPED : null));
  }
  return stop;
}

async function show(site) {
  leave();
  leave = () => {};
  warn(null);
  const [kind, ...names] = route();
  try {
    if (kind === "live" && site.coordinator) leave = showRun(names[0] ?? "");
    else if (kind === "past" && site.folder && names[0]) leave = await showPast(names[0]);
    else if (kind === "compare" && site.folder && names[1]) leave = await showComparison(...names);
    else leave = await showAll(site);
  } catch (error) {
    view.replaceChildren(h("p", { class: "loading" }, ""));
    warn(error.message);
  }
}

// A coordinator with one run and nothing beside it has no list to choose from.
async function start() {
  let site;
  try {
    site = await get("/api/site");
  } catch (error) {
    warn(error.message);
    return;
  }
  say(document.getElementById("source"), [site.coordinator, site.folder].filter(Boolean).join(" · "));
  document.getElementById("sign-out").hidden = !site.signs_in;
  document.querySelector(".skip").addEventListener("click", (event) => { event.preventDefault(); view.focus(); });
  addEventListener("hashchange", async () => { await show(site); view.focus(); scrollTo(0, 0); });
  if (route()[0] === "" && location.hash === "" && site.coordinator) {
    const stop = follow("/api/runs", ({ runs }) => {
      stop();
      if (runs?.length === 1) history.replaceState(null, "", `#/live/${encodeURIComponent(runs[0].key)}`);
      show(site);
    }, (lost) => { if (lost) { stop(); show(site); } });
  } else {
    show(site);
  }
}

start();
