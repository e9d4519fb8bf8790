// The rows of an answer as a grid: sorted by a click on a header, walked with the arrow keys, copied with Ctrl+C. Only
// the rows in view are in the page, so ten thousand of them scroll as easily as ten.
import { h, setText } from "../dom.ts";
import { cellShown, cellText, kindOf, sorted, type ColumnKind, type Order } from "../sql/cell.ts";
import type { Answer } from "../net/query.ts";

/** Pixels of a row; the stylesheet says the same. */
const ROW = 30;
/** Rows that are drawn beyond the edges. */
const MARGIN = 12;
/** Widths in characters; the first rows decide. */
const NARROWEST = 5;
const WIDEST = 44;
const MEASURED = 200;
/** Characters of a value that the table shows; the line below has all of it. */
const SHOWN = 200;

export class ResultTable {
  private readonly columns = h("colgroup");
  private readonly head = h("tr", { role: "row", "aria-rowindex": 1 });
  private readonly body = h("tbody", { role: "rowgroup" });
  private readonly table = h("table", { role: "presentation", class: "result-table" }, this.columns, h("thead", { role: "rowgroup" }, this.head), this.body);
  /** The grid: it has the focus, and names the cell with the cursor. */
  private readonly scroll = h("div", { class: "result-scroll", tabindex: 0, role: "grid", "aria-label": "Rows" }, this.table);
  private readonly value = h("code", { class: "result-value" });
  private readonly copy = h("button", { type: "button", class: "button" }, "Copy");
  private readonly detail = h("div", { class: "result-detail", hidden: true }, this.value, this.copy);
  readonly element = h("div", { class: "result" }, this.scroll, this.detail);

  private answer: Answer = { columns: [], rows: [], cost: { rows: 0, truncated: false, elapsedMs: 0, rowsRead: 0, bytesRead: 0, filesRead: 0 } };
  private kinds: ColumnKind[] = [];
  private indexes: number[] = [];
  private order: Order | null = null;
  /** The cell with the cursor; the row is its place on screen, not in the answer. */
  private active: { row: number; column: number } | null = null;
  private drawn: [from: number, to: number] = [0, 0];

  constructor() {
    this.scroll.addEventListener("scroll", () => { this.draw(false); }, { passive: true });
    new ResizeObserver(() => { this.draw(false); }).observe(this.scroll);
    this.scroll.addEventListener("keydown", (event) => { this.key(event); });
    this.scroll.addEventListener("copy", (event) => {
      if (!this.active || window.getSelection()?.isCollapsed === false) return;
      event.clipboardData?.setData("text/plain", this.activeText());
      event.preventDefault();
    });
    this.body.addEventListener("click", (event) => {
      const cell = (event.target as Element).closest("td");
      if (cell?.dataset.row !== undefined) this.activate({ row: Number(cell.dataset.row), column: Number(cell.dataset.column) });
    });
    this.copy.addEventListener("click", () => { void this.copyActive(); });
    // Browsers give the clipboard to safe origins only; elsewhere Ctrl+C remains.
    this.copy.hidden = !("clipboard" in navigator);
  }

  show(answer: Answer): void {
    this.answer = answer;
    this.kinds = answer.columns.map((column) => kindOf(column.type));
    this.order = null;
    this.active = null;
    this.detail.hidden = true;
    this.scroll.scrollTop = 0;
    this.scroll.scrollLeft = 0;
    this.scroll.removeAttribute("aria-activedescendant");
    this.scroll.setAttribute("aria-rowcount", String(answer.rows.length + 1));
    this.scroll.setAttribute("aria-colcount", String(answer.columns.length));
    this.layOut();
    this.sort();
  }

  private layOut(): void {
    const widths = this.answer.columns.map(({ name, type }, index) => {
      const values = this.answer.rows.slice(0, MEASURED).map((row) => cellShown(row[index], type).length);
      return Math.min(WIDEST, Math.max(NARROWEST, name.length + 2, Math.ceil(type.length * 0.86), ...values));
    });
    const columns = widths.map((width) => {
      const column = h("col");
      column.style.inlineSize = `calc(${width}ch + 24px)`;
      return column;
    });
    this.columns.replaceChildren(...columns);
    this.table.style.inlineSize = `calc(${widths.reduce((sum, width) => sum + width, 0)}ch + ${widths.length * 24}px)`;
  }

  private sort(): void {
    const kind = this.order ? (this.kinds[this.order.column] ?? "text") : "text";
    this.indexes = sorted(this.answer.rows, this.order, kind);
    const headers = this.answer.columns.map((column, index) => this.header(column.name, column.type, index));
    this.head.replaceChildren(...headers);
    this.draw(true);
  }

  private header(name: string, type: string, index: number): HTMLElement {
    const own = this.order?.column === index ? this.order : null;
    const mark = own === null ? "" : own.descending ? "▼" : "▲";
    const button = h("button", { type: "button", title: `Sort by ${name}` }, h("span", { class: "column-name" }, name), h("span", { class: "column-mark", "aria-hidden": "true" }, mark), h("span", { class: "column-type" }, type));
    button.addEventListener("click", () => {
      // Up, down, and back to the order of the answer.
      this.order = own === null ? { column: index, descending: false } : own.descending ? null : { column: index, descending: true };
      this.active = null;
      this.detail.hidden = true;
      this.sort();
      this.head.querySelectorAll("button")[index]?.focus();
    });
    const sortedBy = own === null ? "none" : own.descending ? "descending" : "ascending";
    return h("th", { role: "columnheader", "aria-sort": sortedBy, "aria-colindex": index + 1, class: `is-${this.kinds[index] ?? "text"}` }, button);
  }

  /** Draws the rows in view; `all` also where they are the same rows as before. */
  private draw(all: boolean): void {
    const count = this.indexes.length;
    const first = Math.floor(this.scroll.scrollTop / ROW);
    const visible = Math.ceil((this.scroll.clientHeight || 600) / ROW);
    const from = Math.max(0, Math.min(first, count - visible) - MARGIN);
    const to = Math.min(count, first + visible + MARGIN);
    if (!all && from === this.drawn[0] && to === this.drawn[1]) return;
    this.drawn = [from, to];
    const rows: HTMLElement[] = [];
    if (from > 0) rows.push(this.space(from));
    for (let row = from; row < to; row += 1) rows.push(this.row(row));
    if (to < count) rows.push(this.space(count - to));
    this.body.replaceChildren(...rows);
  }

  private space(rows: number): HTMLElement {
    const cell = h("td", { colspan: Math.max(1, this.answer.columns.length) });
    cell.style.blockSize = `${rows * ROW}px`;
    return h("tr", { class: "result-space", "aria-hidden": "true" }, cell);
  }

  private row(place: number): HTMLElement {
    const values = this.answer.rows[this.indexes[place] ?? 0] ?? [];
    const cells = values.map((value, column) => {
      const isActive = this.active?.row === place && this.active.column === column;
      const shown = cellShown(value, this.answer.columns[column]?.type ?? "").slice(0, SHOWN);
      const kind = value === null ? "null" : (this.kinds[column] ?? "text");
      return h(
        "td",
        { id: `cell-${place}-${column}`, role: "gridcell", class: `is-${kind}${isActive ? " is-active" : ""}`, "aria-colindex": column + 1, "aria-selected": isActive ? "true" : null, "data-row": place, "data-column": column },
        shown,
      );
    });
    return h("tr", { role: "row", "aria-rowindex": place + 2 }, ...cells);
  }

  private activate(to: { row: number; column: number }): void {
    this.active = {
      row: Math.min(this.indexes.length - 1, Math.max(0, to.row)),
      column: Math.min(this.answer.columns.length - 1, Math.max(0, to.column)),
    };
    const { row, column } = this.active;
    const head = this.head.offsetHeight;
    const top = row * ROW;
    if (top < this.scroll.scrollTop) this.scroll.scrollTop = top;
    const bottom = top + ROW + head - this.scroll.clientHeight;
    if (bottom > this.scroll.scrollTop) this.scroll.scrollTop = bottom;
    this.draw(true);
    this.scroll.setAttribute("aria-activedescendant", `cell-${row}-${column}`);
    document.getElementById(`cell-${row}-${column}`)?.scrollIntoView({ block: "nearest", inline: "nearest" });
    const value = this.answer.rows[this.indexes[row] ?? 0]?.[column] ?? null;
    setText(this.value, value === null ? "NULL" : this.activeText());
    setText(this.copy, "Copy");
    this.detail.hidden = false;
  }

  private key(event: KeyboardEvent): void {
    if (event.target !== this.scroll || event.ctrlKey || event.metaKey || event.altKey) return;
    const at = this.active;
    const page = Math.max(1, Math.floor(this.scroll.clientHeight / ROW) - 2);
    const moves: Record<string, [rows: number, columns: number]> = {
      ArrowDown: [1, 0], ArrowUp: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1],
      PageDown: [page, 0], PageUp: [-page, 0], Home: [0, -Infinity], End: [0, Infinity],
    };
    const move = moves[event.key];
    if (event.key === "Escape" && at) {
      this.active = null;
      this.detail.hidden = true;
      this.draw(true);
    } else if (move && this.indexes.length > 0) {
      event.preventDefault();
      this.activate(at ? { row: at.row + move[0], column: at.column + move[1] } : { row: this.drawn[0] === 0 ? 0 : this.drawn[0] + MARGIN, column: 0 });
    }
  }

  private activeText(): string {
    if (!this.active) return "";
    return cellText(this.answer.rows[this.indexes[this.active.row] ?? 0]?.[this.active.column] ?? null);
  }

  private async copyActive(): Promise<void> {
    try {
      await navigator.clipboard.writeText(this.activeText());
      setText(this.copy, "Copied");
    } catch {
      setText(this.copy, "Not allowed");
    }
  }
}
