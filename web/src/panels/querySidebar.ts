// What helps to write a statement: examples, topics with their columns, and what was run before.
import { h, reconcile, setText } from "../dom.ts";
import { ago } from "../format.ts";
import { examples, type Example } from "../sql/examples.ts";
import type { History, Past } from "../sql/history.ts";
import { shortType, type Table } from "../sql/schema.ts";

export interface SidebarCalls {
  /** A statement was chosen to be shown. */
  open(sql: string): void;
  /** A topic or a column was chosen to be written. */
  insert(name: string): void;
}

export class QuerySidebar {
  private readonly examples = h("ul", { class: "query-list" });
  private readonly topics = h("div", { class: "schema" });
  private readonly topicsNote = h("p", { class: "hint" }, "Waiting for the host.");
  private readonly past = h("ul", { class: "query-list" });
  private readonly pastNote = h("p", { class: "hint" }, "What you run is kept here, in this browser.");
  private readonly forget = h("button", { type: "button", class: "button" }, "Forget all");
  readonly element: HTMLElement;

  constructor(
    private readonly calls: SidebarCalls,
    private readonly history: History,
  ) {
    this.element = h(
      "aside",
      { class: "query-side", "aria-label": "Examples, topics and history" },
      section("Examples", true, this.examples),
      section("Topics", true, this.topicsNote, this.topics),
      section("History", false, this.pastNote, this.past, this.forget),
    );
    this.forget.addEventListener("click", () => {
      this.history.clear();
      this.showHistory();
    });
    this.setTables([]);
    this.showHistory();
  }

  setTables(tables: readonly Table[]): void {
    reconcile(this.examples, examples(tables), (example) => example.sql, (example) => this.example(example), () => undefined);
    reconcile(this.topics, tables, (table) => table.name, (table) => this.table(table), (element, table) => { this.updateTable(element, table); });
    this.topicsNote.hidden = tables.length > 0;
  }

  /** Why there are no columns. */
  say(note: string): void {
    setText(this.topicsNote, note);
  }

  showHistory(): void {
    const entries = this.history.entries;
    reconcile(this.past, entries, (past) => past.sql, (past) => this.entry(past), (element, past) => {
      const note = element.querySelector(".query-when");
      if (note) setText(note, ago(Date.now() - past.at));
    });
    this.pastNote.hidden = entries.length > 0;
    this.forget.hidden = entries.length === 0;
  }

  private example({ title, sql }: Example): HTMLElement {
    const button = h("button", { type: "button", class: "query-item", title: sql }, title);
    button.addEventListener("click", () => { this.calls.open(sql); });
    return h("li", {}, button);
  }

  private entry({ sql }: Past): HTMLElement {
    const line = sql.trim().replace(/\s+/g, " ");
    const button = h("button", { type: "button", class: "query-item is-code", title: sql }, h("code", {}, line.slice(0, 120)), h("span", { class: "query-when" }));
    button.addEventListener("click", () => { this.calls.open(sql); });
    return h("li", {}, button);
  }

  private table({ name }: Table): HTMLElement {
    const use = h("button", { type: "button", class: "schema-use", title: `Insert ${name}`, "aria-label": `Insert ${name}` }, "insert");
    use.addEventListener("click", () => { this.calls.insert(name); });
    return h("div", { class: "schema-topic" }, h("details", {}, h("summary", {}, h("span", { class: "schema-name" }, name)), h("ul")), use);
  }

  private updateTable(element: HTMLElement, table: Table): void {
    const list = element.querySelector("ul");
    if (!list) return;
    reconcile(
      list,
      table.columns,
      (column) => `${column.name}\n${column.type}`,
      ({ name, type }) => {
        const button = h("button", { type: "button", class: "schema-column", title: `Insert ${name}` }, h("code", {}, name), h("span", { class: "schema-type" }, shortType(type)));
        button.addEventListener("click", () => { this.calls.insert(name); });
        return h("li", {}, button);
      },
      () => undefined,
    );
  }
}

function section(title: string, open: boolean, ...children: Node[]): HTMLElement {
  return h("details", { class: "query-section", open }, h("summary", {}, h("h2", {}, title)), ...children);
}
