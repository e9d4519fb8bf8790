// The jobs of a queue in one state: a row each, with what can be done.
import { h, reconcile, setText, toggle } from "../dom.ts";
import { short } from "../format.ts";
import { apiError } from "../net/api.ts";
import { listJobs, STATES, type Job, type JobState, type Queue } from "../net/queues.ts";
import { actionsOf, columnsOf, emptyText, type Column } from "../queues/words.ts";
import { href } from "../router.ts";
import { JobActions } from "./jobActions.ts";

const PAGE = 50;
/** The list is read again every second, so it does not grow without end. */
const LIMIT_MAX = 200;

/** States whose jobs are counted; ended ones are kept only for a while. */
const COUNTED = ["waiting", "scheduled", "blocked", "running", "dead"] as const;

export class JobsPanel {
  private readonly links = new Map<JobState, HTMLAnchorElement>();
  private readonly states = h("nav", { class: "job-states", "aria-label": "Jobs by state" });
  private readonly head = h("tr");
  private readonly rows = h("tbody");
  private readonly region = h("div", { class: "scroll", tabindex: 0, role: "region" }, h("table", {}, h("thead", {}, this.head), this.rows));
  private readonly note = h("p", { class: "jobs-note" });
  private readonly more = h("button", { type: "button", class: "button", hidden: true }, "Show more");
  private readonly actions: JobActions;
  readonly element: HTMLElement;

  private queue = "";
  private state: JobState = "waiting";
  private limit = PAGE;
  private jobs: readonly Job[] = [];

  /** `changed` hears when the list should be read again, `open` which job was chosen. */
  constructor(changed: () => void, private readonly open: (id: number) => void) {
    this.actions = new JobActions(changed, this.region);
    for (const state of STATES) {
      const link = h("a", { class: "job-state" }, capital(state), h("span", { class: "job-count" }));
      this.links.set(state, link);
      this.states.append(link);
    }
    this.more.addEventListener("click", () => {
      this.limit = Math.min(this.limit + PAGE, LIMIT_MAX);
      changed();
    });
    this.element = h("div", { class: "jobs" }, this.states, this.actions.element, this.region, h("div", { class: "jobs-foot" }, this.note, this.more));
  }

  show(queue: string, state: JobState): void {
    if (queue === this.queue && state === this.state) return;
    this.queue = queue;
    this.state = state;
    this.limit = PAGE;
    this.jobs = [];
    this.actions.clear();
    this.more.hidden = true;
    this.rows.replaceChildren();
    this.head.replaceChildren(heading("Job", false), ...columnsOf(state).map(({ name, words }) => heading(name, words)), h("th", { scope: "col", class: "words" }, h("span", { class: "sr" }, "What to do")));
    this.region.hidden = true;
    this.region.setAttribute("aria-label", `Jobs of ${queue}, ${state}`);
    setText(this.note, "Reading the jobs.");
    for (const [name, link] of this.links) {
      link.href = href({ page: "queues", queue, state: name });
      if (name === state) link.setAttribute("aria-current", "true");
      else link.removeAttribute("aria-current");
    }
  }

  showCounts(queue: Queue): void {
    for (const state of COUNTED) {
      const count = this.links.get(state)?.lastElementChild;
      if (count) setText(count, short(queue[state]));
    }
    const dead = this.links.get("dead");
    if (dead) toggle(dead, "is-bad", queue.dead > 0);
  }

  async refresh(signal: AbortSignal): Promise<void> {
    try {
      this.fill(await listJobs(this.queue, this.state, this.limit, signal));
    } catch (caught) {
      if (signal.aborted) return;
      const { message, hint } = apiError(caught);
      setText(this.note, `The jobs are not known: ${message}${hint === "" ? "" : ` (${hint})`}`);
    }
  }

  focusRow(id: number): void {
    const row = [...this.rows.children].find((child) => (child as HTMLElement).dataset.key === String(id));
    (row?.querySelector("button") ?? this.links.get(this.state))?.focus();
  }

  private fill(jobs: readonly Job[]): void {
    const now = Date.now();
    const columns = columnsOf(this.state);
    const focused = document.activeElement;
    const had = this.rows.contains(focused);
    this.jobs = jobs;
    this.region.hidden = jobs.length === 0;
    reconcile(this.rows, jobs, (job) => String(job.id), (job) => this.row(job, columns), (row, job) => { update(row, job, columns, now); });
    if (had && !this.rows.contains(focused)) (this.region.hidden ? this.links.get(this.state) : this.region)?.focus();
    const full = jobs.length >= this.limit;
    this.more.hidden = !full || this.limit >= LIMIT_MAX;
    setText(this.note, jobs.length === 0 ? emptyText(this.state) : full && this.limit >= LIMIT_MAX ? `These are the first ${LIMIT_MAX}; there may be more.` : "");
  }

  private row({ id, state }: Job, columns: readonly Column[]): HTMLTableRowElement {
    const { queue } = this;
    const open = h("button", { type: "button", class: "button", "aria-label": `Open job ${id}` }, String(id));
    open.addEventListener("click", () => { this.open(id); });
    const buttons = actionsOf(state).map((action) => this.actions.button(action, queue, state, id, () => this.jobs.find((job) => job.id === id)));
    const cells = columns.map(({ name, words }) => h("td", { class: LONG.has(name) ? "words one-line" : words ? "words" : null }));
    return h("tr", {}, h("th", { scope: "row" }, open), ...cells, h("td", { class: "words" }, h("div", { class: "actions" }, ...buttons)));
  }
}

/** What is cut in a row; the opened job has all of it. */
const LONG: ReadonlySet<string> = new Set(["Key", "Payload", "Result", "Reason", "Last error"]);

function heading(name: string, words: boolean): HTMLElement {
  return h("th", { scope: "col", class: words ? "words" : null }, name);
}

function update(row: HTMLElement, job: Job, columns: readonly Column[], now: number): void {
  columns.forEach(({ text }, index) => {
    const cell = row.children[index + 1];
    if (cell) setText(cell, text(job, now));
  });
}

function capital(word: string): string {
  return `${word.charAt(0).toUpperCase()}${word.slice(1)}`;
}
