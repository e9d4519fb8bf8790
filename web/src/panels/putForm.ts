// The form that puts a job into a queue.
import { h, setText } from "../dom.ts";
import { notDone } from "../net/api.ts";
import { putJob } from "../net/queues.ts";
import { jobBody, priorityText } from "../queues/words.ts";

const PRIORITIES = [1, 2, 3, 4] as const;
const USUAL = 2;

export class PutForm {
  private readonly payload = h("textarea", { id: "put-payload", rows: 4, spellcheck: "false", autocomplete: "off", required: true, "aria-describedby": "put-payload-error" });
  private readonly payloadError = h("p", { id: "put-payload-error", class: "field-error" });
  private readonly key = h("input", { id: "put-key", type: "text", autocomplete: "off", spellcheck: "false" });
  private readonly priority = h("select", { id: "put-priority" }, ...PRIORITIES.map((p) => h("option", { value: p, selected: p === USUAL }, p === USUAL ? `${p}, usual` : priorityText(p))));
  private readonly runAt = h("input", { id: "put-run-at", type: "datetime-local", step: 1, "aria-describedby": "put-run-at-error" });
  private readonly runAtError = h("p", { id: "put-run-at-error", class: "field-error" });
  private readonly unique = h("input", { id: "put-unique", type: "text", autocomplete: "off", spellcheck: "false", "aria-describedby": "put-unique-note" });
  private readonly send = h("button", { type: "submit", class: "button is-main" }, "Put");
  private readonly said = h("p", { class: "said", role: "status" });
  readonly element = h(
    "form",
    { class: "put-form", "aria-label": "Put a job", novalidate: true, hidden: true },
    h("div", { class: "field is-wide" }, h("label", { for: "put-payload" }, "Payload, JSON"), this.payload, this.payloadError),
    h("div", { class: "field" }, h("label", { for: "put-key" }, "Key"), this.key),
    h("div", { class: "field" }, h("label", { for: "put-priority" }, "Priority"), this.priority),
    h("div", { class: "field" }, h("label", { for: "put-run-at" }, "Run at, your time"), this.runAt, this.runAtError),
    h("div", { class: "field" }, h("label", { for: "put-unique" }, "Unique key"), this.unique, h("p", { id: "put-unique-note", class: "sr" }, "No second job with this key is put while the first has not ended.")),
    h("div", { class: "put-foot" }, this.send, this.said),
  );

  private queue = "";
  private busy = false;

  constructor(private readonly changed: () => void) {
    this.payload.value = "{}";
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      void this.put();
    });
    this.payload.addEventListener("input", () => { complain(this.payload, this.payloadError, ""); });
    this.runAt.addEventListener("input", () => { complain(this.runAt, this.runAtError, ""); });
  }

  get open(): boolean {
    return !this.element.hidden;
  }

  toggle(open: boolean): void {
    this.element.hidden = !open;
    if (open) this.payload.focus();
  }

  /** What is written stays; what was said was of another queue. */
  of(queue: string): void {
    this.queue = queue;
    setText(this.said, "");
  }

  private async put(): Promise<void> {
    const body = this.busy ? null : this.written();
    if (body === null) return;
    this.setBusy(true);
    try {
      const { id, created } = await putJob(this.queue, body);
      setText(this.said, created ? `Job ${id} is put.` : `Nothing is put: job ${id} has this unique key.`);
    } catch (caught) {
      setText(this.said, notDone(caught));
    }
    this.setBusy(false);
    this.changed();
  }

  /** The job as the host takes it; null after a complaint beside the field that is wrong. */
  private written(): string | null {
    const written = jobBody({ payload: this.payload.value, key: this.key.value, priority: this.priority.value, runAt: this.runAt.value, unique: this.unique.value });
    const wrong = "error" in written ? written.error : "";
    // Half a time reads as none, and that would be at once.
    const half = this.runAt.validity.badInput ? "The time is not complete. Without one the job runs at once." : "";
    complain(this.payload, this.payloadError, wrong);
    complain(this.runAt, this.runAtError, half);
    if ("body" in written && half === "") return written.body;
    setText(this.said, "");
    (wrong === "" ? this.runAt : this.payload).focus();
    return null;
  }

  private setBusy(busy: boolean): void {
    this.busy = busy;
    this.send.setAttribute("aria-disabled", String(busy));
  }
}

function complain(field: HTMLElement, beside: HTMLElement, error: string): void {
  setText(beside, error);
  field.setAttribute("aria-invalid", String(error !== ""));
}
