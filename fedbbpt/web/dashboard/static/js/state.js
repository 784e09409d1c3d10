// The state of one run, from the records that the server sends (records.py, live_runs.py).

export class RunState {
  constructor() {
    this.run = null;
    this.rounds = [];
    this.events = [];
    this.members = new Map();
    this.controls = [];
    this.problem = null;
    this.settings = null;
    this.live = false;
    this.measuredLater = false;
    this.ahead = 0; // seconds by which the server's clock is ahead of this one
  }

  take(item) {
    if (item.complete) {
      this.rounds = [];
      this.events = [];
      this.members.clear();
    }
    this.run = item.run ?? this.run;
    this.live = item.live;
    this.problem = item.problem;
    this.rounds.push(...item.rounds);
    this.events.push(...item.events);
    this.events.splice(0, this.events.length - 250);
    for (const member of item.members) this.members.set(member.client_id, member);
    for (const name of item.left) this.members.delete(name);
    this.controls = item.controls;
    this.settings = item.settings ?? this.settings;
    this.measuredLater = item.measured_later ?? false;
    if (item.now) this.ahead = item.now - Date.now() / 1000;
  }

  now() {
    return Date.now() / 1000 + this.ahead;
  }

  get ended() {
    return this.run !== null && this.run.state !== "waiting" && this.run.state !== "running";
  }

  best() {
    return this.rounds.find((round) => round.round === this.run?.best_round) ?? null;
  }

  first() {
    return this.rounds.find((round) => round.dev_loss !== null) ?? null;
  }
}
