// The versions that a stage ran, newest first, each with the way back to it.
import { h } from "../dom.ts";
import { moment, shortDigest } from "../format.ts";
import { apiError } from "../net/api.ts";
import { stagePlugin, type Past } from "../net/plugins.ts";
import { pastText, sourceText } from "../plugins/words.ts";

export class PluginHistory {
  private readonly list = h("ol", { class: "history-list" });
  private readonly problem = h("p", { class: "plugin-note is-bad", hidden: true });
  readonly element: HTMLElement;
  /** What is shown: a change of the stage's epoch or state makes it old. */
  private shown = "";

  constructor(
    private readonly pipeline: string,
    private readonly stage: string,
    private readonly onChosen: (digest: string) => void,
  ) {
    this.element = h("div", { class: "history", tabindex: 0, role: "region", "aria-label": `Versions that ${stage} ran`, hidden: true }, this.problem, this.list);
  }

  get open(): boolean {
    return !this.element.hidden;
  }

  toggle(mark: string): void {
    this.element.hidden = !this.element.hidden;
    this.shown = "";
    if (this.open) this.refresh(mark);
  }

  /** Asks again if the stage has moved on since. */
  refresh(mark: string): void {
    if (!this.open || this.shown === mark) return;
    this.shown = mark;
    void this.load(mark);
  }

  private async load(mark: string): Promise<void> {
    try {
      const { digest, history } = await stagePlugin(this.pipeline, this.stage);
      if (this.shown !== mark) return;
      this.show(history, digest);
      this.problem.hidden = true;
    } catch (caught) {
      this.problem.textContent = `The history cannot be read: ${apiError(caught).message}`;
      this.problem.hidden = false;
      // The next answer of the host asks again.
      this.shown = "";
    }
  }

  private show(history: Past[], running: string): void {
    // A digest that ran several times is offered once.
    const offered = new Set([running]);
    const now = Date.now();
    this.list.replaceChildren(
      ...history.map((past) => {
        const offer = !offered.has(past.digest);
        offered.add(past.digest);
        return this.item(past, offer, now);
      }),
    );
  }

  private item(past: Past, offer: boolean, now: number): HTMLElement {
    const when = past.startedAt === null ? "" : moment(past.startedAt, now);
    const name = shortDigest(past.digest);
    const button = offer && h("button", { type: "button", class: "history-back", "aria-label": `Go back to ${name}` }, "Go back to it");
    if (button) button.addEventListener("click", () => { this.onChosen(past.digest); });
    return h(
      "li",
      { class: "history-item" },
      h("span", { class: "history-when" }, when),
      h("code", { title: past.digest }, name),
      h("span", { class: "history-source" }, `${sourceText(past.source)}, ${past.startedBy}`),
      h("span", { class: past.outcome === "rolled-back" ? "history-end is-bad" : "history-end" }, pastText(past)),
      button,
    );
  }
}
