// Who takes part: what each member does now, its last word, and since when it is late.

import { h, prose, say, table } from "./dom.js";
import { count, duration, plural, time } from "./figures.js";

export class Members {
  constructor() {
    this.summary = h("p", { class: "note" });
    this.body = h("div");
    this.element = h("section", { class: "card members", id: "members", "aria-labelledby": "members-title" },
      h("h2", { id: "members-title" }, "Members"), this.summary, this.body);
    this.clocks = [];
  }

  update(state) {
    const { run } = state, all = [...state.members.values()];
    const ranked = all.sort((a, b) => rank(a) - rank(b) || a.client_id.localeCompare(b.client_id));
    const hidden = (run.members?.all ?? 0) - ranked.length;
    const parts = run.members && [
      plural(run.members.all, "member"), `${count(run.members.connected)} connected`,
      run.members.late && `${count(run.members.late)} late`, run.members.trouble && `${count(run.members.trouble)} in trouble`,
      hidden > 0 && `${count(hidden)} not listed`,
    ].filter(Boolean);
    say(this.summary, parts ? `${parts.join(", ")}.` : "");
    const key = JSON.stringify(ranked) + run.state;
    if (key !== this.key) {
      this.key = key;
      this.clocks = [];
      this.body.replaceChildren(ranked.length
        ? table(
            [{ name: "member" }, { name: "now" }, { name: "last word", number: true }, { name: "late since", number: true }, { name: "examples", number: true }],
            ranked.map((member) => this.#row(member, state)),
            "Members of the run",
          )
        : h("p", { class: "empty" }, prose("Nobody has joined yet. A member joins with `fedbbpt client join`.")));
    }
    this.tick(state);
  }

  #row(member, state) {
    const [word, colour] = now(member, state.ended);
    return [
      member.client_id,
      h("span", { class: `state colour-${colour}` }, h("i"), h("span", null, word, member.trouble && h("small", null, member.trouble))),
      this.#clock(member.heard_at, (ago) => `${ago} ago`),
      member.late_since ? this.#clock(member.late_since, (ago) => `${time(member.late_since)}, ${ago}`) : "–",
      count(member.examples),
    ];
  }

  // A text that depends on the time.
  #clock(since, write) {
    const span = h("span", { title: since ? time(since) : null }, since ? "" : "–");
    if (since) this.clocks.push((moment) => say(span, write(duration(Math.max(0, Math.floor(moment - since))))));
    return span;
  }

  tick(state) {
    for (const clock of this.clocks) clock(state.now());
  }
}

function rank(member) {
  return member.trouble ? 0 : member.late_since ? 1 : member.takes_part && !member.submitted ? 2 : 3;
}

function now(member, ended) {
  if (member.trouble) return ["in trouble", "red"];
  if (ended) return ["done", "muted"];
  if (!member.takes_part) return member.late_since ? ["late, the run goes on without it", "amber"] : ["not in this round", "muted"];
  if (member.submitted) return ["has answered", "green"];
  if (!member.connected) return ["not connected", "amber"];
  return member.late_since ? ["late", "amber"] : ["at work", "accent"];
}
