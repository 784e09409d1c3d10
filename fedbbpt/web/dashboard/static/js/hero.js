// The head of a run: its name, what it is doing, and how far it is.

import { h, say } from "./dom.js";
import { count, duration, names, plural, time } from "./figures.js";

const STATES = {
  waiting: ["waiting", "amber"], running: ["running", "accent"], finished: ["finished", "green"], stopped: ["stopped", "amber"],
  unfinished: ["unfinished", "amber"],
};

export class Hero {
  constructor() {
    this.name = h("h1");
    this.about = h("p", { class: "about" });
    this.pill = h("p", { class: "pill" });
    this.doing = h("p", { class: "doing", "aria-live": "polite" });
    this.clock = h("span", { class: "clock" });
    this.progress = h("progress", { max: 1, value: 0, "aria-label": "closed rounds" });
    this.element = h(
      "section", { class: "hero" },
      h("div", { class: "hero-line" }, h("div", null, this.name, this.about), this.pill),
      h("div", { class: "doing-line" }, this.doing, this.clock),
      this.progress,
    );
  }

  update(state) {
    const { run } = state;
    say(this.name, run.name);
    const named = run.run_id && run.run_id !== run.name ? run.run_id : null;
    say(this.about, [run.method, run.ptm, named].filter(Boolean).join(" · "));
    const [word, colour] = STATES[run.state] ?? [run.state, "muted"];
    this.pill.className = `pill colour-${colour}${run.state === "running" && !state.problem ? " beats" : ""}`;
    say(this.pill, word);
    say(this.doing, doing(state));
    this.progress.hidden = run.state === "waiting";
    this.progress.max = run.rounds + 1; // rounds count from 0, and the last one measures the final prompt
    this.progress.value = state.rounds.length;
    this.tick(state);
  }

  // Called every second: what depends on the time alone.
  tick(state) {
    const { run } = state;
    let text = "";
    if (run?.state === "running" && run.round_since && !state.problem) {
      const open = state.now() - run.round_since, left = run.deadline_seconds - open;
      if (open > 3) text = `open for ${duration(Math.round(open))}` + (left > 0 ? `, until ${time(run.round_since + run.deadline_seconds)} at the latest` : "");
    }
    say(this.clock, text);
  }
}

function doing(state) {
  const { run } = state;
  const members = run.members;
  switch (run.state) {
    case "waiting": {
      const more = Math.max(0, run.clients - (members?.all ?? 0));
      if (!more) return "The first round is about to begin.";
      return `Waiting for ${more === 1 ? "one more client" : `${count(more)} more clients`}: ${count(members?.all ?? 0)} of ${count(run.clients)} have joined.`;
    }
    case "running": {
      const which = run.round === run.rounds ? "The last round, which measures the final prompt" : `Round ${run.round} of ${run.rounds}`;
      const owing = [...state.members.values()].filter((member) => member.takes_part && !member.submitted);
      const answered = `${count(members.submitted)} of ${count(members.all)} have answered`;
      if (!members.submitted || !owing.length) return `${which}: ${answered}.`;
      return `${which}: ${answered}, waiting for ${names(owing.map((member) => member.client_id))}.`;
    }
    case "finished": {
      const best = state.best();
      const chosen = best ? ` The result is the prompt of round ${best.round}.` : "";
      if (state.measuredLater) return `All rounds are done.${chosen} It is being measured on the test examples.`;
      return `All ${plural(state.rounds.length, "round")} are done.${chosen}`;
    }
    case "stopped":
      return "An operator stopped the run. Its result is the best prompt so far.";
    default:
      return `The run ended, or was interrupted, after ${plural(state.rounds.length, "round")}. The same command continues it.`;
  }
}
