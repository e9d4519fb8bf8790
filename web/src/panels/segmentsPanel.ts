// One topic's storage: what it weighs hot and cold, and its segments on their time line.
import { timeTicks } from "../chart/axis.ts";
import { h, setText, svg } from "../dom.ts";
import { bytes, clock, oneDecimal, short, whole } from "../format.ts";
import type { Segment, SegmentState } from "../net/segments.ts";
import type { Topic } from "../net/status.ts";
import { barAt, timeline, type Bar } from "../storage/timeline.ts";
import { times, weigh } from "../storage/weights.ts";

const HEIGHT = 72;
const STRIP = 8;
/** Below the line at least, so that the word beside it has room. */
const DEPTH = 16;
const AXIS = 24;
const LEFT = 62;
const TICK_WIDTH = 84;
/** Segments that the table lists; the picture has all. */
const LISTED = 100;

export const STATE_TEXTS: Record<SegmentState, string> = {
  open: "open: appended to",
  sealed: "sealed: to be archived",
  archived: "archived: in both",
  dropping: "dropping: leaves Postgres",
  dropped: "in the bucket only",
};

export class SegmentsPanel {
  private readonly facts = h("dl", { class: "storage-facts" });
  private readonly picture = h("div", { class: "segments-picture" });
  private readonly readout = h("p", { class: "segments-readout hint" });
  private readonly trouble = h("p", { class: "segments-trouble", hidden: true });
  private readonly rows = h("tbody");
  private readonly list: HTMLDetailsElement;
  private readonly retention = h("span", { class: "card-note" });
  readonly element: HTMLElement;
  private segments: readonly Segment[] = [];
  private bars: readonly Bar[] = [];
  /** Where the pointer is, so that a refresh does not take the reading away. */
  private pointer: number | null = null;

  constructor(name: string) {
    const columns = ["Appended", "State", "Records", "In Postgres", "In the bucket", "Bytes each, hot", "Bytes each, cold"];
    const head = h("tr", {}, ...columns.map((column, index) => h("th", { scope: "col", class: index < 2 ? "words" : null }, column)));
    this.list = h("details", { class: "segments-list" }, h("summary", {}, "As a table"), h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": `Segments of ${name}` }, h("table", {}, h("thead", {}, head), this.rows)));
    this.element = h("section", { class: "card storage-card" }, h("header", { class: "card-head" }, h("h2", {}, name), this.retention), this.facts, this.picture, this.readout, this.trouble, this.list);
    this.picture.addEventListener("pointermove", (event) => {
      this.pointer = event.clientX - this.picture.getBoundingClientRect().left;
      this.read();
    });
    this.picture.addEventListener("pointerleave", () => {
      this.pointer = null;
      this.read();
    });
    this.list.addEventListener("toggle", () => { this.fillList(); });
    new ResizeObserver(() => { this.draw(); }).observe(this.picture);
  }

  showTopic(topic: Topic): void {
    const { hot, cold, ratio } = weigh([topic]);
    const kept = topic.retention.cold === "none" ? "not archived" : `then in the bucket ${topic.retention.cold === "forever" ? "for ever" : `for ${topic.retention.cold}`}`;
    setText(this.retention, `segments of ${topic.segment}; ${topic.retention.hot} in Postgres, ${kept}`);
    const facts: [string, string, string][] = [
      ["In Postgres", bytes(hot.bytes), `${short(hot.records)} records, ${oneDecimal(hot.each)} bytes each`],
      ["In the bucket", cold.records === 0 ? "nothing yet" : bytes(cold.bytes), cold.records === 0 ? "" : `${short(cold.records)} records, ${oneDecimal(cold.each)} bytes each`],
      ["Ratio", ratio === null ? "–" : times(ratio), ratio === null ? "" : `${oneDecimal(topic.cold.hotBytesPerRecord)} bytes each before, ${oneDecimal(cold.each)} after`],
    ];
    if (this.facts.children.length === 0) this.facts.append(...facts.map(() => h("div", {}, h("dt"), h("dd", { class: "storage-big" }), h("dd", { class: "storage-note" }))));
    facts.forEach((texts, index) => {
      const cells = this.facts.children[index]?.children ?? [];
      texts.forEach((text, cell) => { if (cells[cell]) setText(cells[cell], text); });
    });
  }

  showSegments(segments: readonly Segment[]): void {
    this.segments = segments;
    const failed = segments.filter((segment) => segment.error !== null);
    this.trouble.hidden = failed.length === 0;
    setText(this.trouble, `${failed.length === 1 ? "One segment is" : `${failed.length} segments are`} not archived yet: ${failed[0]?.error ?? ""}`);
    this.draw();
    this.fillList();
  }

  private draw(): void {
    const width = this.picture.clientWidth;
    if (width <= 0) return;
    const right = width - 16;
    const { low, high, top, depth, bars } = timeline(this.segments, Date.now(), { left: LEFT, right, height: HEIGHT });
    this.bars = bars;
    const below = HEIGHT + STRIP;
    const bottom = below + Math.max(DEPTH, depth);
    const label = `${this.segments.length} segments: ${counted(this.segments)}`;
    const picture = svg("svg", { class: "segments-svg", width, height: bottom + AXIS, role: "img", "aria-label": label });
    picture.append(
      svg("text", { class: "chart-label", x: 16, y: HEIGHT - 12 }, "hot"),
      svg("text", { class: "chart-label", x: 16, y: below + 8 }, "cold"),
      svg("line", { class: "chart-grid", x1: LEFT, x2: right, y1: 0.5, y2: 0.5 }),
      svg("text", { class: "chart-label", x: LEFT - 8, y: 8, "text-anchor": "end" }, this.segments.length > 0 ? bytes(top) : ""),
    );
    for (const { segment, x, width: wide, up, down } of bars) {
      const state = segment.error === null ? segment.state : "failed";
      picture.append(svg("rect", { class: "segment-strip", x, width: wide, y: HEIGHT, height: STRIP, "data-state": state }));
      if (up > 0) picture.append(svg("rect", { class: "segment-hot", x, width: wide, y: HEIGHT - up, height: up, "data-state": state }));
      if (down > 0) picture.append(svg("rect", { class: "segment-cold", x, width: wide, y: below, height: down }));
    }
    for (const { at, label: text } of timeTicks(low, high, Math.max(1, Math.floor((right - LEFT) / TICK_WIDTH)), -new Date(low).getTimezoneOffset() * 60_000)) {
      const x = LEFT + ((at - low) / (high - low)) * (right - LEFT);
      if (x < right - 20) picture.append(svg("text", { class: "chart-label", x, y: bottom + 14, "text-anchor": "middle" }, text));
    }
    this.picture.replaceChildren(picture);
    this.read();
  }

  /** Says what is under the pointer, else what there is in all. */
  private read(): void {
    const bar = this.pointer === null ? null : barAt(this.bars, this.pointer);
    const text = bar ? described(bar.segment) : this.segments.length === 0 ? "No segment yet." : `${this.segments.length} segments: ${counted(this.segments)}.`;
    setText(this.readout, text);
  }

  private fillList(): void {
    if (!this.list.open) return;
    const rows = this.segments.slice(-LISTED).reverse().map((segment) => {
      const cells = [whole(segment.records), bytes(segment.hotBytes), segment.cold ? bytes(segment.cold.bytes) : "–", oneDecimal(hotEach(segment)), oneDecimal(coldEach(segment))];
      return h("tr", {}, h("th", { scope: "row" }, when(segment)), h("td", { class: "words" }, STATE_TEXTS[segment.state]), ...cells.map((cell) => h("td", {}, cell)));
    });
    this.rows.replaceChildren(...rows);
  }
}

function counted(segments: readonly Segment[]): string {
  const names = Object.keys(STATE_TEXTS) as SegmentState[];
  const counts = names.map((state) => [state, segments.filter((segment) => segment.state === state).length] as const);
  return counts.filter(([, count]) => count > 0).map(([state, count]) => `${count} ${state === "dropped" ? "in the bucket only" : state}`).join(", ");
}

function when({ lower, upper }: Segment): string {
  const today = new Date().toDateString() === new Date(lower).toDateString();
  return `${today ? "" : `${new Date(lower).toLocaleDateString("en-CA")} `}${clock(lower)} – ${clock(upper)}`;
}

function hotEach({ hotBytes, records }: Segment): number | null {
  return records !== null && records > 0 && hotBytes > 0 ? hotBytes / records : null;
}

function coldEach({ cold }: Segment): number | null {
  return cold && cold.records > 0 ? cold.bytes / cold.records : null;
}

function described(segment: Segment): string {
  const parts = [when(segment), STATE_TEXTS[segment.state]];
  if (segment.records !== null) parts.push(`${whole(segment.records)} records`);
  if (segment.hotBytes > 0) parts.push(`${bytes(segment.hotBytes)} in Postgres${each(hotEach(segment))}`);
  if (segment.cold) parts.push(`${bytes(segment.cold.bytes)} in the bucket${each(coldEach(segment))}`);
  return parts.join(" · ");
}

function each(value: number | null): string {
  return value === null ? "" : ` (${oneDecimal(value)} bytes each)`;
}
