// The end of a topic, live. Records beyond what a person can read are counted, not drawn and not parsed.
import { h, setText, toggle } from "../dom.ts";
import { DelayClock } from "../fleet/clock.ts";
import { clock, whole } from "../format.ts";
import { parseRecord, type LogRecord } from "../net/record.ts";
import { Sampler } from "../net/sample.ts";
import type { SseEvent } from "../net/sse.ts";
import { Stream, type StreamState } from "../net/stream.ts";
import { icon } from "./icons.ts";

const DRAW_MS = 500;
const PER_DRAW = 8;
const SHOWN_MAX = 60;
/** What arrives this soon after connecting is history, old on purpose. */
const SETTLE_MS = 5_000;
const BEHIND_MS = 10_000;

export class TailPanel {
  readonly element = h("section", { class: "card tail", "aria-labelledby": "tail-title", hidden: true });
  private readonly title = h("h2", { id: "tail-title" });
  private readonly note = h("span", { class: "card-note" });
  private readonly list = h("ol", { class: "records", tabindex: 0, "aria-label": "Newest records" });
  private readonly pauseButton = h("button", { type: "button", class: "button", "aria-pressed": "false" });
  private readonly sampler = new Sampler<SseEvent>(PER_DRAW);
  private stream: Stream | null = null;
  private topic: string | null = null;
  private state: StreamState = { name: "idle" };
  /** Where each partition goes on, so that a reconnect repeats nothing. */
  private readonly next = new Map<number, number>();
  private clock = new DelayClock();
  private timer: number | undefined;
  private paused = false;

  constructor() {
    this.pauseButton.addEventListener("click", () => { this.setPaused(!this.paused); });
    this.setPaused(false);
    this.element.append(
      h("header", { class: "card-head" }, this.title, this.note, this.pauseButton),
      this.list,
    );
  }

  open(topic: string | null): void {
    if (topic !== this.topic) {
      this.close();
      this.list.replaceChildren();
      this.next.clear();
      this.topic = topic;
      this.setPaused(false);
    }
    this.element.hidden = topic === null;
    if (topic === null || this.stream || this.paused) return;
    setText(this.title, topic);
    this.clock = new DelayClock();
    this.stream = new Stream({
      url: `/v1/topics/${encodeURIComponent(topic)}/stream?from=tail:10`,
      onEvents: (events) => { this.sampler.push(events.filter((event) => event.type === "record")); },
      onState: (state) => { this.take(state); },
    });
    this.stream.start();
    this.timer = window.setInterval(() => { this.draw(); }, DRAW_MS);
  }

  close(): void {
    this.stream?.stop();
    this.stream = null;
    window.clearInterval(this.timer);
    this.sampler.drain();
  }

  private setPaused(paused: boolean): void {
    this.paused = paused;
    this.pauseButton.replaceChildren(icon(paused ? "play" : "pause"), paused ? "Resume" : "Pause");
    this.pauseButton.setAttribute("aria-pressed", String(paused));
    toggle(this.element, "is-paused", paused);
    if (paused) {
      this.close();
      setText(this.note, "Paused");
    } else if (this.topic !== null) {
      this.open(this.topic);
    }
  }

  private take(state: StreamState): void {
    this.state = state;
    // A topic that was dropped and made anew counts from zero again.
    if (state.name === "refused") this.next.clear();
  }

  private draw(): void {
    const { shown, arrived } = this.sampler.drain();
    const records = shown.map((event) => parseRecord(event.data)).filter((record) => record !== null).filter((record) => this.isNew(record));
    if (this.isBehind(records.at(-1))) {
      this.close();
      this.open(this.topic);
      return;
    }
    for (const record of records) this.list.prepend(recordItem(record));
    while (this.list.childElementCount > SHOWN_MAX) this.list.lastElementChild?.remove();
    setText(this.note, describe(this.state, records.length, arrived));
  }

  private isNew({ partition, offset }: LogRecord): boolean {
    if (offset < (this.next.get(partition) ?? 0)) return false;
    this.next.set(partition, offset + 1);
    return true;
  }

  /** Whether this page reads slower than the topic grows; then it skips to the end instead of showing the past. */
  private isBehind(record: LogRecord | undefined): boolean {
    if (typeof record?.at !== "number") return false;
    const now = Date.now();
    const age = this.clock.age(record.at, now);
    return this.state.name === "live" && now - this.state.since > SETTLE_MS && age > BEHIND_MS;
  }
}

function describe(state: StreamState, shown: number, arrived: number): string {
  if (state.name === "refused" || state.name === "waiting") return state.error.message;
  if (state.name !== "live") return "Connecting";
  if (arrived > shown) return `Live, showing ${whole((shown * 1000) / DRAW_MS)} of ${whole((arrived * 1000) / DRAW_MS)} records/s`;
  return "Live";
}

function recordItem(record: LogRecord): HTMLElement {
  const place = `${record.partition}:${record.offset}`;
  return h(
    "li",
    { class: "record" },
    h(
      "header",
      { class: "record-head" },
      h("span", { class: "record-place" }, place),
      h("span", { class: "record-key" }, record.key ?? "no key"),
      record.form !== "json" && h("span", { class: "record-form" }, record.form),
      h("time", { class: "record-time" }, record.at === null ? "" : clock(record.at)),
    ),
    h("pre", { class: "record-body" }, record.body),
    record.headers.length > 0 && h("p", { class: "record-headers" }, record.headers.map(([name, value]) => `${name}: ${value}`).join("\n")),
  );
}
