// What became of a statement: rows as a table or a chart, an error, and what it cost.
import { chart } from "../chart/chart.ts";
import { h, setText } from "../dom.ts";
import { bytes, whole } from "../format.ts";
import type { ApiError } from "../net/api.ts";
import type { Answer, Cost } from "../net/query.ts";
import { ResultTable } from "./resultTable.ts";

export class QueryOutcome {
  private readonly table = new ResultTable();
  private readonly chart = h("div", { class: "chart-scroll", hidden: true });
  private readonly tableButton = h("button", { type: "button", class: "segment", "aria-pressed": "true" }, "Table");
  private readonly chartButton = h("button", { type: "button", class: "segment", "aria-pressed": "false" }, "Chart");
  private readonly cost = h("p", { class: "query-cost", role: "status" });
  private readonly actions = h("div", { class: "outcome-actions" });
  private readonly bar = h("div", { class: "outcome-bar" }, this.cost, this.actions);
  private readonly message = h("p", { class: "query-message" });
  private readonly hint = h("p", { class: "query-hint" });
  private readonly where = h("button", { type: "button", class: "button" }, "Show where");
  private readonly error = h("div", { class: "query-error", role: "alert", hidden: true }, this.message, this.hint, this.where);
  private readonly empty = h("p", { class: "query-empty hint" }, "Rows come here. Ctrl+Enter runs the statement.");
  readonly element = h("section", { class: "outcome", "aria-label": "Result" }, this.bar, this.error, this.empty, this.table.element, this.chart);

  private answer: Answer | null = null;
  private asChart = false;

  /** `downloads` stand beside the choice of table and chart; `goTo` shows the place of an error. */
  constructor(downloads: readonly HTMLElement[], goTo: () => void) {
    this.actions.append(h("div", { class: "segments", role: "group", "aria-label": "Show as" }, this.tableButton, this.chartButton), ...downloads);
    this.tableButton.addEventListener("click", () => { this.choose(false); });
    this.chartButton.addEventListener("click", () => { this.choose(true); });
    this.where.addEventListener("click", goTo);
    new ResizeObserver(() => { this.drawChart(); }).observe(this.chart);
    this.choose(false);
  }

  showAnswer(answer: Answer): void {
    this.answer = answer;
    this.table.show(answer);
    this.showCost(answer.cost, "");
    this.error.hidden = true;
    this.choose(this.asChart);
  }

  /** What a statement cost whose rows went into a file. */
  showFile(cost: Cost, name: string): void {
    this.error.hidden = true;
    this.showCost(cost, `${name}: `);
  }

  /** The rows of an older statement would be taken for those of this one, so they go. */
  showError(error: ApiError): void {
    this.answer = null;
    setText(this.message, error.message);
    setText(this.hint, error.hint);
    this.hint.hidden = error.hint === "";
    this.where.hidden = error.position === undefined;
    this.error.hidden = false;
    this.say(error.status === 0 ? "No answer." : "Refused.");
    this.choose(this.asChart);
  }

  /** A line in the place of the cost: that it runs, that it was cancelled. */
  say(text: string): void {
    setText(this.cost, text);
  }

  /** Dims the rows of the statement before while another one runs. */
  setRunning(running: boolean): void {
    this.element.classList.toggle("is-running", running);
    this.element.setAttribute("aria-busy", String(running));
    if (running) this.error.hidden = true;
  }

  private showCost(cost: Cost, before: string): void {
    const rows = `${whole(cost.rows)} ${cost.rows === 1 ? "row" : "rows"}${cost.truncated ? " (cut off: there are more)" : ""}`;
    const files = `${whole(cost.filesRead)} ${cost.filesRead === 1 ? "file" : "files"}`;
    this.say(`${before}${rows} in ${took(cost.elapsedMs)}; read ${whole(cost.rowsRead)} rows, ${bytes(cost.bytesRead)} of ${files}`);
  }

  private choose(asChart: boolean): void {
    this.asChart = asChart;
    this.tableButton.setAttribute("aria-pressed", String(!asChart));
    this.chartButton.setAttribute("aria-pressed", String(asChart));
    this.actions.hidden = this.answer === null;
    this.empty.hidden = this.answer !== null || !this.error.hidden;
    this.table.element.hidden = asChart || this.answer === null;
    this.chart.hidden = !asChart || this.answer === null;
    this.drawChart();
  }

  private drawChart(): void {
    const width = this.chart.clientWidth - 32;
    if (this.chart.hidden || !this.answer || width <= 0) return;
    this.chart.replaceChildren(chart(this.answer, Math.max(260, width)));
  }
}

/** A time to three digits. */
export function took(ms: number): string {
  return ms < 1_000 ? `${ms < 100 ? ms.toFixed(1) : ms.toFixed(0)} ms` : `${(ms / 1_000).toFixed(2)} s`;
}
