// One queue: how it is set, pausing it, putting a job, and its jobs.
import { h, reconcile, setText } from "../dom.ts";
import { notDone } from "../net/api.ts";
import { setPaused, type JobState, type Queue } from "../net/queues.ts";
import { cronText, settingsText } from "../queues/words.ts";
import { icon } from "./icons.ts";
import { JobsPanel } from "./jobsPanel.ts";
import { PutForm } from "./putForm.ts";

export class QueueCard {
  private readonly title = h("h2", { id: "queue-title" });
  private readonly settings = h("p", { class: "card-note" });
  private readonly crons = h("ul", { class: "crons", "aria-label": "Jobs by the clock" });
  private readonly pauseButton = h("button", { type: "button", class: "button" });
  private readonly putButton = h("button", { type: "button", class: "button", "aria-expanded": "false" }, icon("plus"), "Put a job");
  private readonly said = h("p", { class: "said", role: "status" });
  private readonly form: PutForm;
  private readonly jobs: JobsPanel;
  readonly element: HTMLElement;

  private queue: Queue | null = null;
  private name = "";
  private busy = false;

  constructor(private readonly changed: () => void, open: (id: number) => void) {
    this.form = new PutForm(changed);
    this.jobs = new JobsPanel(changed, open);
    this.element = h(
      "section",
      { class: "card queue", "aria-labelledby": "queue-title", hidden: true },
      h("header", { class: "card-head" }, this.title, h("div", { class: "actions" }, this.putButton, this.pauseButton), this.settings, this.crons),
      this.said,
      this.form.element,
      this.jobs.element,
    );
    this.pauseButton.addEventListener("click", () => { void this.pause(); });
    this.putButton.addEventListener("click", () => {
      this.form.toggle(!this.form.open);
      this.putButton.setAttribute("aria-expanded", String(this.form.open));
    });
  }

  show(name: string, state: JobState): void {
    if (name !== this.name) {
      this.name = name;
      this.queue = null;
      this.form.of(name);
      setText(this.said, "");
      this.element.hidden = true;
    }
    this.jobs.show(name, state);
  }

  update(queue: Queue): void {
    this.queue = queue;
    this.element.hidden = false;
    setText(this.title, queue.name);
    setText(this.settings, settingsText(queue.settings));
    this.crons.hidden = queue.crons.length === 0;
    reconcile(this.crons, queue.crons, (cron) => cron.name, () => h("li"), (item, cron) => { setText(item, cronText(cron, Date.now())); });
    const label = queue.paused ? "Resume" : "Pause";
    if (this.pauseButton.textContent !== label) this.pauseButton.replaceChildren(icon(queue.paused ? "play" : "pause"), label);
    this.jobs.showCounts(queue);
  }

  hide(): void {
    this.element.hidden = true;
  }

  refresh(signal: AbortSignal): Promise<void> {
    return this.jobs.refresh(signal);
  }

  focusRow(id: number): void {
    this.jobs.focusRow(id);
  }

  private async pause(): Promise<void> {
    const { queue } = this;
    if (!queue || this.busy) return;
    this.busy = true;
    try {
      await setPaused(queue.name, !queue.paused);
      setText(this.said, queue.paused ? "Its jobs are claimed again." : "Paused: what runs goes on, and nothing more is claimed until it is resumed.");
    } catch (caught) {
      setText(this.said, notDone(caught));
    }
    this.busy = false;
    this.changed();
  }
}
