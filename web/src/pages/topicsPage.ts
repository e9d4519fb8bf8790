// Topics, and the newest records of one of them as they arrive.
import { h, reconcile, setText } from "../dom.ts";
import { bytes, oneDecimal, rate, whole } from "../format.ts";
import type { HostView, Topic } from "../net/status.ts";
import { TailPanel } from "../panels/tailPanel.ts";
import { href, type Route } from "../router.ts";
import type { Page } from "./page.ts";

const COLUMNS = ["Topic", "Partitions", "Records", "Records/s", "Hot records", "Hot size", "Bytes each", "Segment", "Retention", "Acks"] as const;

/** Columns of words; the others hold numbers and line up on the right. */
const WORDS: ReadonlySet<string> = new Set(["Segment", "Retention", "Acks"]);

export class TopicsPage implements Page {
  readonly title = "Topics";
  readonly element: HTMLElement;
  private readonly body = h("tbody");
  private readonly empty = h("p", { class: "hint" }, "Waiting for the host.");
  private readonly tail = new TailPanel();
  private chosen: string | null = null;

  constructor() {
    this.element = h(
      "div",
      { class: "page" },
      h("h1", {}, "Topics"),
      this.empty,
      h(
        "div",
        { class: "card scroll", tabindex: 0, role: "region", "aria-label": "Topics" },
        h("table", {}, h("thead", {}, h("tr", {}, ...COLUMNS.map((name) => h("th", { scope: "col", class: WORDS.has(name) ? "words" : null }, name)))), this.body),
      ),
      this.tail.element,
    );
  }

  show(route: Route): void {
    this.chosen = route.page === "topics" ? route.topic : null;
    this.tail.open(this.chosen);
    this.mark();
  }

  hide(): void {
    this.tail.close();
  }

  onTheme(): void {
    // Colours come from the stylesheet.
  }

  onHost({ status }: HostView): void {
    if (!status) return;
    this.empty.hidden = status.topics.length > 0;
    setText(this.empty, "There is no topic yet. Create one with: tidemill topic create NAME");
    reconcile(this.body, status.topics, (t) => t.name, topicRow, updateRow);
    this.mark();
  }

  private mark(): void {
    for (const row of this.body.children) {
      const isChosen = (row as HTMLElement).dataset.key === this.chosen;
      row.classList.toggle("is-selected", isChosen);
      const link = row.querySelector("a");
      if (isChosen) link?.setAttribute("aria-current", "true");
      else link?.removeAttribute("aria-current");
    }
  }
}

function topicRow(topic: Topic): HTMLTableRowElement {
  const link = h("a", { href: href({ page: "topics", topic: topic.name }) }, topic.name);
  const row = h("tr", {}, h("th", { scope: "row" }, link));
  for (const name of COLUMNS.slice(1)) row.append(h("td", { class: WORDS.has(name) ? "words" : null }));
  return row;
}

function updateRow(row: HTMLElement, topic: Topic): void {
  const texts = [
    whole(topic.partitions),
    whole(topic.records),
    rate(topic.recordsPerSecond),
    whole(topic.hot.records),
    bytes(topic.hot.bytes),
    oneDecimal(topic.hot.bytesPerRecord),
    topic.segment,
    topic.retention.cold === "" ? topic.retention.hot : `${topic.retention.hot} hot, ${topic.retention.cold} cold`,
    topic.acks,
  ];
  texts.forEach((text, index) => {
    const cell = row.children[index + 1];
    if (cell) setText(cell, text === "" ? "–" : text);
  });
}
