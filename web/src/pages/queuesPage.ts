// Queues and who works for them, then the jobs of one queue, and one of those opened.
import { h, reconcile, setText } from "../dom.ts";
import { NONE, rate, seconds, short, whole } from "../format.ts";
import { apiError } from "../net/api.ts";
import { Poll } from "../net/poll.ts";
import { listQueues, type JobState, type Queue } from "../net/queues.ts";
import type { HostView, Stage, Status } from "../net/status.ts";
import { JobCard } from "../panels/jobCard.ts";
import { QueueCard } from "../panels/queueCard.ts";
import { href, type Route } from "../router.ts";
import type { Page } from "./page.ts";
import { reasonOf } from "./pipelinesPage.ts";

const COLUMNS = ["Queue", "State", "Waiting", "Oldest waits", "Scheduled", "Blocked", "Running", "Dead"] as const;
const WORKER_COLUMNS = ["Worker", "State", "Queue", "Jobs /s", "Running", "Done", "Retried", "Snoozed", "Rejected", "Cancelled", "Refused", "Written", "Restarts"] as const;
const COUNTS = ["running", "done", "retried", "snoozed", "rejected", "cancelled", "refused"] as const;

/** Columns of words; the others hold numbers and line up on the right. */
const WORDS: ReadonlySet<string> = new Set(["State", "Queue"]);

interface Worker {
  pipeline: string;
  stage: Stage;
}

export class QueuesPage implements Page {
  readonly title = "Queues";
  readonly element: HTMLElement;
  private readonly note = h("p", { class: "hint" }, "Waiting for the host.");
  private readonly rows = h("tbody");
  private readonly table = table(COLUMNS, "Queues", this.rows);
  private readonly workerRows = h("tbody");
  private readonly workers = h("section", { hidden: true }, h("h2", { class: "page-section" }, "Workers of this host"), table(WORKER_COLUMNS, "Workers", this.workerRows));
  private readonly heading = h("h2", { class: "page-section" }, "Jobs");
  private readonly choose = h("p", { class: "hint" });
  private readonly poll = new Poll((signal) => this.read(signal));
  private readonly card = new QueueCard(() => { this.poll.poke(); }, (id) => { this.open(id); });
  private readonly job = new JobCard(() => { this.poll.poke(); }, (id) => { this.card.focusRow(id); });

  private queues: readonly Queue[] | null = null;
  private chosen: string | null = null;
  private state: JobState = "waiting";

  constructor() {
    this.element = h("div", { class: "page" }, h("h1", {}, "Queues"), this.note, this.table, this.workers, this.heading, this.choose, this.card.element, this.job.element);
    this.table.hidden = true;
    this.heading.hidden = true;
  }

  show(route: Route): void {
    if (route.page !== "queues") return;
    if (route.queue !== this.chosen) this.job.close();
    this.chosen = route.queue;
    this.state = route.state;
    if (this.chosen !== null) this.card.show(this.chosen, this.state);
    this.showQueues();
    this.poll.poke();
  }

  hide(): void {
    this.poll.stop();
  }

  onTheme(): void {
    // Colours come from the stylesheet.
  }

  onHost({ status }: HostView): void {
    if (!status) return;
    const workers = workersOf(status);
    this.workers.hidden = workers.length === 0;
    reconcile(this.workerRows, workers, ({ pipeline, stage }) => `${pipeline}/${stage.name}`, workerRow, updateWorker);
  }

  private async read(signal: AbortSignal): Promise<void> {
    try {
      this.queues = await listQueues(signal);
      this.showQueues();
    } catch (caught) {
      if (signal.aborted) return;
      const { message, hint } = apiError(caught);
      this.note.hidden = false;
      setText(this.note, `The queues are not known: ${message}${hint === "" ? "" : ` (${hint})`}`);
    }
    if (this.chosenQueue === undefined) return;
    await this.card.refresh(signal);
    await this.job.refresh(signal);
  }

  private get chosenQueue(): Queue | undefined {
    return this.queues?.find((queue) => queue.name === this.chosen);
  }

  private showQueues(): void {
    const { queues, chosenQueue, chosen } = this;
    if (queues === null) return;
    this.note.hidden = queues.length > 0;
    this.table.hidden = this.heading.hidden = queues.length === 0;
    setText(this.note, "There is no queue yet. Make one with [queues.NAME] in a pipeline file, or with SELECT tidemill.create_queue('NAME').");
    reconcile(this.rows, queues, (queue) => queue.name, queueRow, updateQueue);
    this.mark();
    this.choose.hidden = queues.length === 0 || chosenQueue !== undefined;
    setText(this.choose, chosen === null ? "Choose a queue to see its jobs." : `There is no queue ${chosen}. Choose one of those above.`);
    if (chosenQueue) this.card.update(chosenQueue);
    else this.card.hide();
  }

  private mark(): void {
    for (const row of this.rows.children) {
      const isChosen = (row as HTMLElement).dataset.key === this.chosen;
      row.classList.toggle("is-selected", isChosen);
      const link = row.querySelector("a");
      if (isChosen) link?.setAttribute("aria-current", "true");
      else link?.removeAttribute("aria-current");
    }
  }

  private open(id: number): void {
    if (this.chosen === null) return;
    this.job.open(this.chosen, id);
    this.poll.poke();
  }
}

function workersOf({ pipelines }: Status): Worker[] {
  return pipelines.flatMap((pipeline) => pipeline.stages.filter((stage) => stage.kind === "worker").map((stage) => ({ pipeline: pipeline.name, stage })));
}

function table(columns: readonly string[], label: string, body: HTMLElement): HTMLElement {
  const head = columns.map((name, index) => h("th", { scope: "col", class: index > 0 && WORDS.has(name) ? "words" : null }, name));
  return h("div", { class: "card scroll", tabindex: 0, role: "region", "aria-label": label }, h("table", {}, h("thead", {}, h("tr", {}, ...head)), body));
}

function cellsOf(columns: readonly string[]): HTMLElement[] {
  return columns.slice(1).map((name) => h("td", { class: WORDS.has(name) ? "words" : null }));
}

function queueRow({ name }: Queue): HTMLTableRowElement {
  const row = h("tr", {}, h("th", { scope: "row" }, h("a", { href: href({ page: "queues", queue: name, state: "waiting" }) }, name)), ...cellsOf(COLUMNS));
  row.children[1]?.append(h("span", { class: "state" }));
  row.lastElementChild?.append(h("a", { href: href({ page: "queues", queue: name, state: "dead" }), class: "dead-link", hidden: true }), h("span"));
  return row;
}

function updateQueue(row: HTMLElement, queue: Queue): void {
  const state = row.children[1]?.firstElementChild as HTMLElement | null;
  if (state) {
    const word = stateOf(queue);
    state.dataset.state = word;
    setText(state, word);
  }
  put(row, 2, [short(queue.waiting), queue.oldestWaiting === null ? NONE : seconds(queue.oldestWaiting), short(queue.scheduled), short(queue.blocked), short(queue.running)]);
  const [link, none] = row.lastElementChild?.children ?? [];
  if (!link || !none) return;
  link.toggleAttribute("hidden", queue.dead === 0);
  setText(link, short(queue.dead));
  link.setAttribute("aria-label", `${short(queue.dead)} dead ${queue.dead === 1 ? "job" : "jobs"} of ${queue.name}`);
  setText(none, queue.dead === 0 ? "0" : "");
}

function stateOf({ paused, running, waiting }: Queue): string {
  if (paused) return "paused";
  return running > 0 ? "running" : waiting > 0 ? "waiting" : "idle";
}

function workerRow({ stage }: Worker): HTMLTableRowElement {
  const row = h("tr", {}, h("th", { scope: "row" }, h("span", { class: "cell-main" }), h("span", { class: "cell-note" })), ...cellsOf(WORKER_COLUMNS));
  row.children[1]?.append(h("span", { class: "state" }), h("span", { class: "cell-note reason" }));
  const { queue } = stage;
  if (queue !== null) row.children[2]?.append(h("a", { href: href({ page: "queues", queue, state: "running" }) }, queue));
  return row;
}

function updateWorker(row: HTMLElement, { pipeline, stage }: Worker): void {
  const pair = (index: number, main: string, note: string): Element | undefined => {
    const [first, second] = row.children[index]?.children ?? [];
    if (first) setText(first, main);
    if (second) setText(second, note);
    return first;
  };
  pair(0, `${pipeline}/${stage.name}`, `${stage.plugin} ${stage.version}`);
  const state = pair(1, stage.state, reasonOf(stage)) as HTMLElement | undefined;
  if (state) state.dataset.state = stage.state;
  const { jobs } = stage;
  const counts = jobs === null ? COUNTS.map(() => NONE) : COUNTS.map((name) => short(jobs[name]));
  put(row, 3, [rate(stage.inPerSecond), ...counts, short(stage.recordsOut), whole(stage.restarts)]);
}

function put(row: HTMLElement, from: number, texts: readonly string[]): void {
  texts.forEach((text, index) => {
    const cell = row.children[from + index];
    if (cell) setText(cell, text);
  });
}
