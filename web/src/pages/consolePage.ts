// The console: a statement, and what became of it. One statement runs at a time; it goes on when the page is left,
// because the host ends it soon enough.
import { h, setText } from "../dom.ts";
import { apiError } from "../net/api.ts";
import { ask, askFile, PUBLISHED, type FileFormat } from "../net/query.ts";
import type { HostView } from "../net/status.ts";
import { icon } from "../panels/icons.ts";
import { QueryOutcome } from "../panels/queryOutcome.ts";
import { QuerySidebar } from "../panels/querySidebar.ts";
import type { SqlEditor } from "../panels/sqlEditor.ts";
import { href, type Route } from "../router.ts";
import { History } from "../sql/history.ts";
import { SCHEMA_SQL, tablesOf, type Table } from "../sql/schema.ts";
import { indexOfByte } from "../sql/text.ts";
import type { Page } from "./page.ts";

/** Longer statements stay out of the address. */
const LONGEST_LINK = 6_000;
const TICK_MS = 100;

export class ConsolePage implements Page {
  readonly title = "Console";
  readonly element: HTMLElement;
  private readonly editorHost = h("div", { class: "sql-editor" }, h("p", { class: "hint sql-waiting" }, "Fetching the editor."));
  private readonly runButton = h("button", { type: "button", class: "button is-primary run-button" });
  private readonly history = new History(storage());
  private readonly sidebar: QuerySidebar;
  private readonly outcome: QueryOutcome;
  private readonly downloads: HTMLButtonElement[];
  private editor: SqlEditor | null = null;
  private loading = false;
  /** The statement, while there is no editor yet. */
  private waitingText = PUBLISHED;
  private tables: readonly Table[] = [];
  /** The topics that `tables` were asked for, as one text. */
  private tablesOfTopics: string | null = null;
  /** The statement of the address that was shown last; coming back to it does not undo what was written since. */
  private linked: string | null = null;
  private running: AbortController | null = null;
  private errorAt: number | null = null;

  constructor() {
    const download = (format: FileFormat, label: string): HTMLButtonElement => {
      const button = h("button", { type: "button", class: "button", title: `Runs the statement again and saves all its rows as ${label}` }, icon("descent"), label);
      button.addEventListener("click", () => { void this.download(format); });
      return button;
    };
    this.downloads = [download("csv", "CSV"), download("parquet", "Parquet")];
    this.outcome = new QueryOutcome(this.downloads, () => { if (this.errorAt !== null) this.editor?.goTo(this.errorAt); });
    this.sidebar = new QuerySidebar({ open: (sql) => { this.open(sql); }, insert: (name) => { this.editor?.insert(name); } }, this.history);
    this.runButton.addEventListener("click", () => { this.runOrCancel(); });
    const toolbar = h("div", { class: "query-toolbar" }, this.runButton, h("span", { class: "hint keys" }, "Ctrl+Enter"));
    this.element = h(
      "div",
      { class: "console-page" },
      h("h1", { class: "sr" }, "Console"),
      this.sidebar.element,
      h("div", { class: "query-main" }, h("div", { class: "query-box" }, this.editorHost, toolbar), this.outcome.element),
    );
    this.showRunning();
  }

  show(route: Route): void {
    if (route.page === "query" && route.sql !== null && route.sql !== this.linked) {
      this.linked = route.sql;
      this.text = route.sql;
    }
    void this.loadEditor();
    this.sidebar.showHistory();
  }

  hide(): void {
    // Nothing is open but the statement that runs, if any.
  }

  onTheme(): void {
    // Colours come from the stylesheet.
  }

  onHost({ status }: HostView): void {
    if (!status) return;
    const topics = status.topics.map((topic) => topic.name).join("\n");
    if (topics !== this.tablesOfTopics) void this.loadTables(topics);
  }

  private get text(): string {
    return this.editor?.text ?? this.waitingText;
  }

  private set text(text: string) {
    if (this.editor) this.editor.text = text;
    else this.waitingText = text;
  }

  private open(sql: string): void {
    this.text = sql;
    this.runButton.focus();
  }

  private async loadEditor(): Promise<void> {
    if (this.editor || this.loading) return;
    this.loading = true;
    try {
      const { SqlEditor } = await import("../panels/sqlEditor.ts");
      this.editor = new SqlEditor(this.editorHost, this.waitingText, () => { this.runOrCancel(true); });
      this.editor.setTables(this.tables);
    } catch {
      const waiting = this.editorHost.querySelector(".sql-waiting");
      if (waiting) setText(waiting, "The editor could not be fetched. Load the page again.");
    }
    this.loading = false;
  }

  private async loadTables(topics: string): Promise<void> {
    this.tablesOfTopics = topics;
    try {
      this.tables = tablesOf(await ask(SCHEMA_SQL, AbortSignal.timeout(20_000)));
      this.sidebar.say("There is no topic yet. Create one with: tidemill topic create NAME");
      this.sidebar.setTables(this.tables);
      this.editor?.setTables(this.tables);
    } catch (caught) {
      this.sidebar.say(`The columns are not known: ${apiError(caught).message}`);
      // Asked again with the next status, but not in a hurry.
      window.setTimeout(() => { this.tablesOfTopics = null; }, 5_000);
    }
  }

  /** The button runs and cancels; the keys only run, so that a second press does not end what the first began. */
  private runOrCancel(onlyRun = false): void {
    if (!this.running) void this.run();
    else if (!onlyRun) this.running.abort();
  }

  private async run(): Promise<void> {
    const sql = this.text;
    if (sql.length <= LONGEST_LINK) {
      this.linked = sql;
      window.history.replaceState(null, "", href({ page: "query", sql }));
    }
    await this.perform(sql, async (signal) => {
      this.outcome.showAnswer(await ask(sql, signal));
    });
  }

  private async download(format: FileFormat): Promise<void> {
    const sql = this.text;
    await this.perform(sql, async (signal) => {
      const { file, cost } = await askFile(sql, format, signal);
      const name = `query.${format}`;
      save(file, name);
      this.outcome.showFile(cost, name);
    });
  }

  private async perform(sql: string, work: (signal: AbortSignal) => Promise<void>): Promise<void> {
    if (this.running) return;
    const abort = new AbortController();
    const since = performance.now();
    this.running = abort;
    this.markError(null);
    this.showRunning();
    const tick = window.setInterval(() => { this.outcome.say(`Running for ${((performance.now() - since) / 1000).toFixed(1)} s`); }, TICK_MS);
    try {
      await work(abort.signal);
    } catch (caught) {
      if (abort.signal.aborted) this.outcome.say("Cancelled.");
      else this.refused(sql, caught);
    } finally {
      window.clearInterval(tick);
      this.running = null;
      this.showRunning();
      this.history.add(sql, Date.now());
      this.sidebar.showHistory();
    }
  }

  private refused(sql: string, caught: unknown): void {
    const error = apiError(caught);
    this.outcome.showError(error);
    // It may have been edited while it ran.
    if (error.position !== undefined && sql === this.text) this.markError(indexOfByte(sql, error.position));
  }

  private markError(index: number | null): void {
    this.errorAt = index;
    this.editor?.setMark(index);
  }

  private showRunning(): void {
    const running = this.running !== null;
    this.runButton.replaceChildren(icon(running ? "close" : "play"), running ? "Cancel" : "Run");
    this.outcome.setRunning(running);
    for (const button of this.downloads) button.disabled = running;
  }
}

function save(file: Blob, name: string): void {
  const url = URL.createObjectURL(file);
  h("a", { href: url, download: name }).click();
  // The download has begun by then, and holds the data itself.
  window.setTimeout(() => { URL.revokeObjectURL(url); }, 60_000);
}

/** Null in browsers that keep nothing. */
function storage(): Storage | null {
  try {
    return window.localStorage;
  } catch {
    return null;
  }
}
