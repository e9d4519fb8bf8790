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
  private readonly runAt = h("input", { id: "put-run-at", type: "datetime-local", step: 1 });
  private readonly unique = h("input", { id: "put-unique", type: "text", autocomplete: "off", spellcheck: "false", "aria-describedby": "put-unique-note" });
  private readonly send = h("button", { type: "submit", class: "button is-main" }, "Put");
  private readonly said = h("p", { class: "said", role: "status" });
  readonly element = h(
    "form",
    { class: "put-form", "aria-label": "Put a job", novalidate: true, hidden: true },
    h("div", { class: "field is-wide" }, h("label", { for: "put-payload" }, "Payload, JSON"), this.payload, this.payloadError),
    h("div", { class: "field" }, h("label", { for: "put-key" }, "Key"), this.key),
    h("div", { class: "field" }, h("label", { for: "put-priority" }, "Priority"), this.priority),
    h("div", { class: "field" }, h("label", { for: "put-run-at" }, "Run at, your time"), this.runAt),
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
    this.payload.addEventListener("input", () => { this.complain(""); });
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
    if (this.busy) return;
    const written = jobBody({ payload: this.payload.value, key: this.key.value, priority: this.priority.value, runAt: this.runAt.value, unique: this.unique.value });
    if ("error" in written) {
      setText(this.said, "");
      this.complain(written.error);
      this.payload.focus();
      return;
    }
    this.complain("");
    this.setBusy(true);
    try {
      const { id, created } = await putJob(this.queue, written.body);
      setText(this.said, created ? `Job ${id} is put.` : `Nothing is put: job ${id} has this unique key.`);
    } catch (caught) {
      setText(this.said, notDone(caught));
    }
    this.setBusy(false);
    this.changed();
  }

  private complain(error: string): void {
    setText(this.payloadError, error);
    this.payload.setAttribute("aria-invalid", String(error !== ""));
  }

  private setBusy(busy: boolean): void {
    this.busy = busy;
    this.send.setAttribute("aria-disabled", String(busy));
  }
}
