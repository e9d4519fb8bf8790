// The stream in numbers: messages a second, what a message costs, how far behind each group is.
import { h, reconcile, setText, toggle } from "../dom.ts";
import { bytes, oneDecimal, rate, seconds, short, span, whole } from "../format.ts";
import { Ring } from "../net/sample.ts";
import type { Group, HostView, Stage, Status, Topic } from "../net/status.ts";
import { Sparkline } from "./sparkline.ts";

const HISTORY = 90;
const TILES = ["Bytes per message", "Lag", "Records", "Host memory"] as const;
/** Seconds behind at which the bar of a group is full. */
const LAG_FULL_SECONDS = 60;
/** Seconds behind from which a group is marked. */
const LAG_MARKED_SECONDS = 5;

export function totalRate(status: Status): number {
  return status.topics.reduce((sum, topic) => sum + topic.recordsPerSecond, 0);
}

/** Bytes per message in Postgres over all hot records, weighted by how many there are. */
export function hotBytesPerMessage(topics: readonly Topic[]): number | null {
  const records = topics.reduce((sum, topic) => sum + topic.hot.records, 0);
  const size = topics.reduce((sum, topic) => sum + topic.hot.bytes, 0);
  return records === 0 ? null : size / records;
}

/** The busiest topic stands for the cost of a message: side outputs are few and say little. */
export function mainTopic(topics: readonly Topic[]): Topic | null {
  return topics.reduce<Topic | null>((best, topic) => (best === null || topic.records > best.records ? topic : best), null);
}

export class StreamPanel {
  /** Rate and cost, for the top of a column. */
  readonly summary: HTMLElement;
  /** Groups, stages and topics, for further down. */
  readonly details: HTMLElement;
  private readonly history = new Ring(HISTORY);
  private readonly spark = new Sparkline();
  private readonly rate = h("span", { class: "big" }, "–");
  private readonly tiles = new Map<string, { value: HTMLElement; note: HTMLElement }>();
  private readonly groups = h("ul", { class: "meters" });
  private readonly stages = h("ul", { class: "stage-lines" });
  private readonly topics = h("ul", { class: "topic-lines" });
  private readonly about = h("p", { class: "about" });
  private lastAt = 0;

  constructor() {
    const tiles = h("dl", { class: "tiles" });
    for (const name of TILES) tiles.append(this.tile(name));
    this.summary = h(
      "section",
      { class: "panel stream-panel", "aria-labelledby": "stream-title" },
      h("header", { class: "panel-head" }, h("h2", { id: "stream-title" }, "Stream"), h("a", { class: "more", href: "#/pipelines" }, "Pipelines")),
      h("div", { class: "throughput" }, h("p", { class: "throughput-now" }, this.rate, h("span", { class: "unit" }, "messages/s in all topics")), this.spark.element),
      tiles,
    );
    this.details = h(
      "section",
      { class: "panel", "aria-label": "Groups, stages and topics" },
      h("h3", {}, "Lag per group"),
      this.groups,
      h("h3", {}, "Stages"),
      this.stages,
      h("h3", {}, "Topics"),
      this.topics,
      this.about,
    );
  }

  update({ status, at, failing }: HostView): void {
    toggle(this.summary, "is-stale", failing !== null);
    toggle(this.details, "is-stale", failing !== null);
    if (!status) return;
    const now = totalRate(status);
    if (at !== this.lastAt) {
      this.lastAt = at;
      this.history.push(now);
      this.spark.show(this.history.list(), HISTORY);
    }
    setText(this.rate, rate(now));
    this.updateTiles(status);
    const speeds = new Map(status.topics.map((topic) => [topic.name, topic.recordsPerSecond]));
    reconcile(this.groups, status.groups, (g) => `${g.group}\n${g.topic}`, groupLine, (line, g) => {
      updateGroup(line, g, secondsBehind(g.lag, speeds.get(g.topic) ?? 0));
    });
    const stages = status.pipelines.flatMap((p) => p.stages.map((stage) => ({ key: `${p.name}/${stage.name}`, stage })));
    reconcile(this.stages, stages, (s) => s.key, stageLine, (line, { stage }) => { updateStage(line, stage); });
    reconcile(this.topics, status.topics, (t) => t.name, topicLine, updateTopic);
    setText(this.about, `tidemill ${status.version} · PostgreSQL ${status.postgresVersion} · up ${span(status.uptimeSeconds)}`);
  }

  private updateTiles(status: Status): void {
    const main = mainTopic(status.topics);
    const perMessage = main?.hot.bytesPerRecord ?? hotBytesPerMessage(status.topics);
    const lag = status.groups.reduce((sum, group) => sum + group.lag, 0);
    const records = status.topics.reduce((sum, topic) => sum + topic.records, 0);
    const hot = status.topics.reduce((sum, topic) => sum + topic.hot.bytes, 0);
    this.set("Bytes per message", oneDecimal(perMessage), main ? `hot, in ${main.name}` : "hot");
    this.set("Lag", short(lag), status.groups.length === 1 ? "over 1 group" : `over ${status.groups.length} groups`);
    this.set("Records", short(records), `${bytes(hot)} hot`);
    this.set("Host memory", bytes(status.memoryBytes), "resident");
  }

  private tile(name: string): HTMLElement {
    const value = h("dd", { class: "tile-value" }, "–");
    const note = h("dd", { class: "tile-note" });
    this.tiles.set(name, { value, note });
    return h("div", { class: "tile" }, h("dt", {}, name), value, note);
  }

  private set(name: string, value: string, note: string): void {
    const tile = this.tiles.get(name);
    if (!tile) return;
    setText(tile.value, value);
    setText(tile.note, note);
  }
}

function parts(line: HTMLElement): (HTMLElement | undefined)[] {
  return [...line.children] as HTMLElement[];
}

function groupLine(): HTMLElement {
  return h("li", { class: "meter" }, h("span", { class: "meter-name" }), h("span", { class: "meter-value" }), h("span", { class: "meter-bar" }, h("i", {})));
}

function updateGroup(line: HTMLElement, group: Group, behind: number | null): void {
  const [name, value, bar] = parts(line);
  if (name) setText(name, group.group);
  if (value) setText(value, behind === null ? whole(group.lag) : `${whole(group.lag)} · ${seconds(behind)}`);
  // A square root keeps a tenth of a second visible on the scale of a minute.
  const share = Math.min(1, Math.sqrt((behind ?? LAG_FULL_SECONDS) / LAG_FULL_SECONDS));
  const fill = bar?.firstElementChild as HTMLElement | null | undefined;
  if (fill) fill.style.setProperty("inline-size", `${(100 * share).toFixed(1)}%`);
  toggle(line, "is-behind", behind === null || behind >= LAG_MARKED_SECONDS);
  line.title = `group ${group.group} on ${group.topic}: ${whole(group.lag)} records behind, reads ${rate(group.recordsPerSecond)}/s`;
}

/** Lag as time: how long the topic took to get that far ahead; null when it stands still with records unread. */
export function secondsBehind(lag: number, topicRate: number): number | null {
  if (lag === 0) return 0;
  return topicRate > 0 ? lag / topicRate : null;
}

function stageLine(): HTMLElement {
  return h("li", { class: "stage-line" }, h("span", { class: "state-dot" }), h("span", { class: "stage-name" }), h("span", { class: "stage-rate" }), h("span", { class: "stage-reason" }));
}

function updateStage(line: HTMLElement, stage: Stage): void {
  const [dot, name, speed, reason] = parts(line);
  if (dot) {
    dot.dataset.state = stage.state;
    dot.title = stage.state;
  }
  if (name) setText(name, stage.name);
  const out = stage.kind === "producer";
  if (speed) setText(speed, stage.state === "running" || stage.state === "idle" ? `${rate(out ? stage.outPerSecond : stage.inPerSecond)}/s` : stage.state);
  if (reason) {
    setText(reason, stage.reason ?? "");
    reason.hidden = stage.reason === null;
  }
  line.title = `${stage.kind} ${stage.name}: ${stage.state}, ${stage.plugin} ${stage.version} ${stage.digest}`;
}

function topicLine(): HTMLElement {
  return h("li", { class: "topic-line" }, h("a", {}), h("span", { class: "topic-rate" }), h("span", { class: "topic-records" }));
}

function updateTopic(line: HTMLElement, topic: Topic): void {
  const [name, speed, records] = parts(line);
  if (name) {
    setText(name, topic.name);
    name.setAttribute("href", `#/topics/${encodeURIComponent(topic.name)}`);
  }
  if (speed) setText(speed, `${rate(topic.recordsPerSecond)}/s`);
  if (records) setText(records, whole(topic.records));
}
