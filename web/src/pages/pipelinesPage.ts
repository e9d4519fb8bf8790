// Every pipeline with its stages, what they do now and why they do not, and the component that each of them runs; then groups
// by partition.
import { h, reconcile, setText } from "../dom.ts";
import { moment, rate, short, whole } from "../format.ts";
import type { Group, HostView, Member, Pipeline, Stage, Status } from "../net/status.ts";
import { PluginRow } from "../panels/pluginRow.ts";
import { href } from "../router.ts";
import type { Page } from "./page.ts";

const STAGE_COLUMNS = ["Stage", "State", "Reads", "Writes", "In /s", "Out /s", "In", "Out", "Refused", "Lag", "Restarts"] as const;

const HOST_COLUMNS = ["Host", "Serves at", "Version", "Partitions"] as const;

export class PipelinesPage implements Page {
  readonly title = "Pipelines";
  readonly element: HTMLElement;
  private readonly pipelines = h("div", { class: "cards" });
  private readonly groups = h("div", { class: "cards side-by-side" });
  private readonly hosts = table(HOST_COLUMNS, "Hosts on this database");
  private readonly hostsSection = h("section", { hidden: true }, h("h2", { class: "page-section" }, "Hosts"), h("div", { class: "card" }, this.hosts));
  private readonly rows = new WeakMap<HTMLElement, PluginRow>();
  private readonly filesError = h("pre", { class: "files-error" });
  private readonly filesSince = h("p");
  private readonly files = h("div", { class: "files", role: "alert", hidden: true }, this.filesSince, this.filesError);
  private readonly empty = h("p", { class: "hint" }, "Waiting for the host.");

  constructor() {
    this.element = h(
      "div",
      { class: "page" },
      h("h1", {}, "Pipelines"),
      this.empty,
      this.files,
      this.pipelines,
      h("h2", { class: "page-section" }, "Consumer groups"),
      this.groups,
      this.hostsSection,
    );
    // A component dropped beside its stage would else be opened in place of the page.
    for (const name of ["dragover", "drop"] as const) {
      this.element.addEventListener(name, (event) => {
        event.preventDefault();
        if (event.dataTransfer) event.dataTransfer.dropEffect = "none";
      });
    }
  }

  show(): void {
    // Nothing to open: everything here comes with the status.
  }

  hide(): void {
    // Nothing to close.
  }

  onTheme(): void {
    // Colours come from the stylesheet.
  }

  onHost({ status }: HostView): void {
    if (!status) return;
    this.empty.hidden = status.pipelines.length > 0;
    setText(this.empty, "No pipeline runs. Start one with: tidemill up pipelines/aircraft.toml");
    reconcile(this.pipelines, status.pipelines, (p) => p.name, pipelineCard, (card, p) => { this.updatePipeline(card, p); });
    this.showFiles(status.filesError);
    this.showHosts(status);
    const letters = new Map(status.deadLetters.map(({ group, letters }) => [group, letters]));
    reconcile(this.groups, status.groups, (g) => `${g.group}\n${g.topic}`, groupCard, (card, g) => { updateGroup(card, g, letters.get(g.group) ?? 0); });
  }

  private updatePipeline(card: HTMLElement, pipeline: Pipeline): void {
    const body = card.querySelector("tbody");
    if (body) reconcile(body, pipeline.stages, (s) => s.name, stageRow, updateStage);
    const plugins = card.querySelector<HTMLElement>(".plugins");
    if (!plugins) return;
    reconcile(plugins, pipeline.stages, (s) => s.name, (s) => this.pluginRow(pipeline.name, s.name), (row, s) => { this.rows.get(row)?.update(s); });
  }

  private pluginRow(pipeline: string, stage: string): HTMLElement {
    const row = new PluginRow(pipeline, stage);
    this.rows.set(row.element, row);
    return row.element;
  }

  /** One host alone is the one that serves this page. */
  private showHosts(status: Status): void {
    this.hostsSection.hidden = status.hosts.length < 2;
    const body = this.hosts.querySelector("tbody");
    if (body) reconcile(body, status.hosts, (m) => m.host, hostRow, (row, m) => { updateHost(row, m, m.host === status.host); });
  }

  private showFiles(problem: Status["filesError"]): void {
    this.files.hidden = problem === null;
    if (!problem) return;
    const since = problem.at === null ? "" : ` since ${moment(problem.at, Date.now())}`;
    setText(this.filesSince, `The pipeline files do not run as they are${since}; what ran before goes on.`);
    setText(this.filesError, problem.error);
  }
}

/** Columns of words; the others hold numbers and line up on the right. */
const WORDS = new Set(["State", "Reads", "Writes", "Owner", "Serves at", "Version"]);

function table(columns: readonly string[], label: string): HTMLElement {
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": label },
    h("table", {}, h("thead", {}, h("tr", {}, ...columns.map((name) => h("th", { scope: "col", class: WORDS.has(name) ? "words" : null }, name)))), h("tbody")),
  );
}

function pipelineCard(pipeline: Pipeline): HTMLElement {
  return h(
    "section",
    { class: "card" },
    h("header", { class: "card-head" }, h("h2", {}, pipeline.name), h("code", {}, pipeline.file)),
    table(STAGE_COLUMNS, `Stages of ${pipeline.name}`),
    h("div", { class: "card-head plugins-head" }, h("h3", {}, "Components"), h("span", { class: "card-note" }, "Push one to a running stage, or drop its file on it.")),
    h("ul", { class: "plugins", "aria-label": `Components of ${pipeline.name}` }),
  );
}

function hostRow(): HTMLTableRowElement {
  const row = h("tr", {}, h("th", { scope: "row" }, h("span", { class: "cell-main" }), h("span", { class: "cell-note" })));
  for (const name of HOST_COLUMNS.slice(1)) row.append(h("td", { class: WORDS.has(name) ? "words" : null }));
  return row;
}

function updateHost(row: HTMLElement, member: Member, isThis: boolean): void {
  const [name, ...others] = [...row.children] as HTMLElement[];
  const [main, note] = name?.children ?? [];
  if (main) setText(main, member.host);
  if (note) setText(note, isThis ? "this one" : "");
  // An address of another machine's loopback leads nowhere, so it is text and no link.
  const texts = [member.url ?? "–", member.version, whole(member.leases)];
  others.forEach((cell, index) => { setText(cell, texts[index] ?? ""); });
}

function stageRow(): HTMLTableRowElement {
  const row = h("tr", {}, h("th", { scope: "row" }, h("span", { class: "cell-main" }), h("span", { class: "cell-note" })));
  for (const name of STAGE_COLUMNS.slice(1)) row.append(h("td", { class: WORDS.has(name) ? "words" : null }));
  row.children[1]?.append(h("span", { class: "state" }), h("span", { class: "cell-note reason" }));
  return row;
}

function updateStage(row: HTMLElement, stage: Stage): void {
  const cells = [...row.children] as HTMLElement[];
  const put = (index: number, text: string): void => {
    const cell = cells[index];
    if (cell) setText(cell, text);
  };
  const pair = (index: number, first: string, second: string): HTMLElement | null => {
    const [main, note] = cells[index]?.children ?? [];
    if (main) setText(main, first);
    if (note) setText(note, second);
    return (main as HTMLElement | undefined) ?? null;
  };
  pair(0, stage.name, stage.kind);
  const state = pair(1, stage.state, reasonOf(stage));
  if (state) state.dataset.state = stage.state;
  const targets = [...stage.to, ...stage.toQueues];
  const reads = stage.from ?? stage.queue;
  put(2, reads ?? "–");
  put(3, targets.length === 0 ? "–" : targets.map(([port, target]) => (port === "default" ? target : `${port} → ${target}`)).join(", "));
  put(4, reads === null ? "–" : rate(stage.inPerSecond));
  put(5, rate(stage.outPerSecond));
  put(6, reads === null ? "–" : short(stage.recordsIn));
  put(7, short(stage.recordsOut));
  put(8, whole(stage.refused));
  put(9, whole(stage.lag));
  put(10, whole(stage.restarts));
}

/** The stage's reason, else what its unwell partitions say. */
export function reasonOf(stage: Stage): string {
  if (stage.reason !== null) return stage.reason;
  return stage.tasks
    // What other hosts run is in the table of hosts, and nothing is wrong with it.
    .filter((task) => task.reason !== null && task.state !== "idle")
    .map((task) => `partition ${task.partition}: ${task.reason ?? ""}`)
    .join("; ");
}

function groupCard(group: Group): HTMLElement {
  return h(
    "section",
    { class: "card" },
    h("header", { class: "card-head" }, h("h3", {}, group.group), h("span", { class: "card-note" }), h("a", { class: "letters-link", href: href({ page: "letters", group: group.group }), hidden: true })),
    table(["Partition", "Offset", "End", "Lag", "Epoch", "Owner"], `Partitions of group ${group.group}`),
  );
}

function updateGroup(card: HTMLElement, group: Group, letters: number): void {
  const link = card.querySelector<HTMLElement>(".letters-link");
  if (link) {
    link.hidden = letters === 0;
    setText(link, `${whole(letters)} dead ${letters === 1 ? "letter" : "letters"}`);
  }
  const note = card.querySelector(".card-note");
  if (note) setText(note, `reads ${group.topic} at ${rate(group.recordsPerSecond)}/s, ${whole(group.lag)} behind`);
  const body = card.querySelector("tbody");
  if (!body) return;
  reconcile(
    body,
    group.partitions,
    (p) => String(p.partition),
    () => h("tr", {}, h("th", { scope: "row" }), h("td"), h("td"), h("td"), h("td"), h("td", { class: "words" })),
    (row, p) => {
      const texts = [String(p.partition), whole(p.offset), whole(p.end), whole(p.lag), whole(p.epoch), p.owner ?? "–"];
      texts.forEach((text, index) => {
        const cell = row.children[index];
        if (cell) setText(cell, text);
      });
    },
  );
}
