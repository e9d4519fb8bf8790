// One job, opened: all there is to say of it, what it carries, what came of it, and what can be done with it.
import { h, reconcile, setText } from "../dom.ts";
import { bytes } from "../format.ts";
import { apiError, type ApiError } from "../net/api.ts";
import type { Content } from "../net/content.ts";
import { readJob, type Job } from "../net/queues.ts";
import { actionsOf, factsOf } from "../queues/words.ts";
import { JobActions } from "./jobActions.ts";

/** A job that is larger is read again only when something was done with it. */
const FOLLOWED_BYTES = 64 * 1024;

export class JobCard {
  private readonly title = h("h3", { tabindex: -1 });
  private readonly buttons = h("div", { class: "actions" });
  private readonly closeButton = h("button", { type: "button", class: "button" }, "Close");
  private readonly facts = h("dl", { class: "fact-list" });
  private readonly size = h("h4");
  private readonly payload = h("pre", { class: "payload", tabindex: 0, role: "region", "aria-label": "Payload" });
  private readonly resultTitle = h("h4", {}, "Result");
  private readonly result = h("pre", { class: "payload", tabindex: 0, role: "region", "aria-label": "Result" });
  /** Why there is nothing more to see. */
  private readonly note = h("p", { class: "jobs-note" });
  private readonly actions: JobActions;
  readonly element: HTMLElement;

  private id: number | null = null;
  private job: Job | null = null;
  private queue = "";
  /** It may have changed since it was read. */
  private stale = true;
  /** The host knows it no more. */
  private gone = false;

  /** `changed` hears of a job that something was done with, `closed` that the card was closed. */
  constructor(changed: () => void, private readonly closed: (id: number) => void) {
    this.actions = new JobActions(() => {
      this.stale = true;
      changed();
    }, this.title);
    this.element = h(
      "section",
      { class: "card opened", "aria-label": "Job", hidden: true },
      h("header", { class: "card-head" }, this.title, h("div", { class: "actions" }, this.buttons, this.closeButton)),
      this.actions.element,
      this.note,
      this.facts,
      this.size,
      this.payload,
      this.resultTitle,
      this.result,
    );
    this.closeButton.addEventListener("click", () => { this.close(); });
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
  }

  open(queue: string, id: number): void {
    this.queue = queue;
    this.id = id;
    this.job = null;
    this.stale = true;
    this.gone = false;
    this.element.hidden = false;
    this.actions.clear();
    setText(this.title, `Job ${id}`);
    for (const part of [this.buttons, this.facts]) part.replaceChildren();
    delete this.buttons.dataset.state;
    for (const part of [this.size, this.payload, this.result, this.note]) setText(part, "");
    this.resultTitle.hidden = this.result.hidden = this.payload.hidden = true;
    this.title.focus();
  }

  close(): void {
    const { id } = this;
    this.id = null;
    this.element.hidden = true;
    this.actions.clear();
    if (id !== null) this.closed(id);
  }

  /** Reads the job again, if one is open. */
  async refresh(signal: AbortSignal): Promise<void> {
    const { id } = this;
    if (id === null || this.gone || !(this.stale || (this.job?.bytes ?? 0) <= FOLLOWED_BYTES)) return;
    try {
      const job = await readJob(this.queue, id, signal);
      if (this.id === id) this.fill(job);
    } catch (caught) {
      if (signal.aborted || this.id !== id) return;
      this.explain(apiError(caught));
    }
  }

  /** What is shown stays, and while the host is away the list says so. */
  private explain({ message, hint, status }: ApiError): void {
    if (status === 404) {
      this.gone = true;
      this.showButtons(null);
      setText(this.note, "It is gone: it was dropped, or it ended longer ago than the queue keeps jobs.");
    } else if (this.job === null) {
      setText(this.note, hint === "" ? message : `${message} (${hint})`);
    }
  }

  private fill(job: Job): void {
    this.job = job;
    this.stale = false;
    setText(this.note, "");
    reconcile(this.facts, factsOf(job, Date.now()), ([name]) => name, ([name]) => h("div", {}, h("dt", {}, name), h("dd")), (row, [, value]) => {
      if (row.lastElementChild) setText(row.lastElementChild, value);
    });
    this.showButtons(job);
    setText(this.size, `Payload, ${bytes(job.bytes)}${inHex(job.payload)}`);
    setText(this.payload, job.payload.text);
    this.payload.hidden = false;
    this.resultTitle.hidden = this.result.hidden = job.result === null;
    setText(this.resultTitle, `Result${job.result === null ? "" : inHex(job.result)}`);
    setText(this.result, job.result?.text ?? "");
  }

  /** Made anew only for another state, so that a button keeps the focus. */
  private showButtons(job: Job | null): void {
    const state = job?.state ?? "";
    if (this.buttons.dataset.state === state) return;
    const had = this.buttons.contains(document.activeElement);
    this.buttons.dataset.state = state;
    this.buttons.replaceChildren(...(job === null ? [] : actionsOf(state).map((action) => this.actions.button(action, this.queue, state, job.id, () => this.job ?? undefined))));
    if (had) this.title.focus();
  }
}

function inHex({ binary }: Content): string {
  return binary ? ", in hex" : "";
}
