// The storage picture: where the history of each topic is, in Postgres or in the bucket, and what it takes there.
import { h, reconcile, setText } from "../dom.ts";
import { bytes, oneDecimal, short } from "../format.ts";
import { apiError } from "../net/api.ts";
import { segmentsOf, STATES } from "../net/segments.ts";
import type { HostView, Topic } from "../net/status.ts";
import { SegmentsPanel, STATE_TEXTS } from "../panels/segmentsPanel.ts";
import { times, weigh } from "../storage/weights.ts";
import type { Page } from "./page.ts";

/** One round over all topics begins this long after the one before has ended. */
const REFRESH_MS = 2_000;

export class StoragePage implements Page {
  readonly title = "Storage";
  readonly element: HTMLElement;
  private readonly empty = h("p", { class: "hint" }, "Waiting for the host.");
  private readonly tiles = [tile("In Postgres"), tile("In the bucket"), tile("Ratio")] as const;
  private readonly totals = h("dl", { class: "storage-totals", hidden: true }, ...this.tiles);
  private readonly legend = h("ul", { class: "segments-legend", "aria-label": "States of segments", hidden: true }, ...STATES.map((state) => h("li", { "data-state": state }, STATE_TEXTS[state])));
  private readonly note = h("p", { class: "hint", hidden: true });
  private readonly cards = h("div", { class: "cards" });
  private readonly panels = new Map<string, SegmentsPanel>();
  private topics: readonly Topic[] = [];
  /** Ends the rounds when the page goes out of view. */
  private shown: AbortController | null = null;

  constructor() {
    this.element = h("div", { class: "page" }, h("h1", {}, "Storage"), this.empty, this.totals, this.legend, this.note, this.cards);
  }

  show(): void {
    if (this.shown) return;
    this.shown = new AbortController();
    void this.refresh(this.shown.signal);
  }

  hide(): void {
    this.shown?.abort();
    this.shown = null;
  }

  onTheme(): void {
    // Colours come from the stylesheet.
  }

  onHost({ status }: HostView): void {
    if (!status) return;
    const first = this.topics.length === 0;
    this.topics = inOrder(status.topics, this.topics);
    this.empty.hidden = this.topics.length > 0;
    this.totals.hidden = this.legend.hidden = this.topics.length === 0;
    setText(this.empty, "There is no topic yet. Create one with: tidemill topic create NAME");
    this.showTotals();
    for (const name of this.panels.keys()) if (!this.topics.some((topic) => topic.name === name)) this.panels.delete(name);
    reconcile(this.cards, this.topics, (topic) => topic.name, (topic) => this.panel(topic.name).element, (_, topic) => { this.panel(topic.name).showTopic(topic); });
    if (first && this.topics.length > 0 && this.shown) {
      this.hide();
      this.show();
    }
  }

  private panel(name: string): SegmentsPanel {
    const panel = this.panels.get(name) ?? new SegmentsPanel(name);
    this.panels.set(name, panel);
    return panel;
  }

  private showTotals(): void {
    const { hot, cold, ratio } = weigh(this.topics);
    const texts = [
      [bytes(hot.bytes), `${short(hot.records)} records, ${oneDecimal(hot.each)} bytes each`],
      [bytes(cold.bytes), `${short(cold.records)} records, ${oneDecimal(cold.each)} bytes each, ${short(cold.objects)} files`],
      [ratio === null ? "–" : times(ratio), ratio === null ? "nothing is archived yet" : "in the bucket than the same records were in Postgres"],
    ] as const;
    texts.forEach(([value, note], index) => {
      const [, big, small] = this.tiles[index]?.children ?? [];
      if (big) setText(big, value);
      if (small) setText(small, note);
    });
  }

  /** One request at a time, topic by topic. */
  private async refresh(signal: AbortSignal): Promise<void> {
    let trouble = "";
    for (const { name } of this.topics) {
      try {
        const segments = await segmentsOf(name, signal);
        this.panels.get(name)?.showSegments(segments);
      } catch (caught) {
        trouble = `The segments of ${name} are not known: ${apiError(caught).message}`;
      }
      if (signal.aborted) return;
    }
    this.note.hidden = trouble === "";
    setText(this.note, trouble);
    window.setTimeout(() => { if (!signal.aborted) void this.refresh(signal); }, REFRESH_MS);
  }
}

/** The heavy ones first as they are first seen; cards that change places would be hard to read. */
function inOrder(topics: readonly Topic[], before: readonly Topic[]): Topic[] {
  const place = new Map(before.map(({ name }, index) => [name, index]));
  const weight = ({ hot, cold }: Topic): number => hot.records + cold.records;
  const rank = ({ name }: Topic): number => place.get(name) ?? before.length;
  return [...topics].sort((a, b) => rank(a) - rank(b) || weight(b) - weight(a) || a.name.localeCompare(b.name));
}

function tile(name: string): HTMLElement {
  return h("div", {}, h("dt", {}, name), h("dd", { class: "storage-big" }), h("dd", { class: "storage-note" }));
}
