// A question before something is lost. It takes the focus, and gives it back when it was answered.
import { h, setText } from "../dom.ts";

export class Question {
  private readonly text = h("p");
  private readonly yes = h("button", { type: "button", class: "button is-danger" });
  private readonly no = h("button", { type: "button", class: "button" }, "No, keep it");
  readonly element = h("div", { class: "confirm", role: "group", "aria-label": "Confirm", hidden: true }, this.text, h("div", { class: "actions" }, this.yes, this.no));

  private then: (() => void) | null = null;
  private from: HTMLElement | null = null;

  /** `otherwise` gets the focus if what had it before is gone. */
  constructor(private readonly otherwise: HTMLElement) {
    this.yes.addEventListener("click", () => {
      const { then } = this;
      this.close();
      then?.();
    });
    this.no.addEventListener("click", () => { this.close(); });
    this.element.addEventListener("keydown", (event) => {
      if (event.key !== "Escape") return;
      // What lies around it may close as well on another Escape.
      event.stopPropagation();
      this.close();
    });
  }

  ask(text: string, yes: string, from: HTMLElement, then: () => void): void {
    setText(this.text, text);
    setText(this.yes, yes);
    this.then = then;
    this.from = from;
    this.element.hidden = false;
    this.element.scrollIntoView({ block: "nearest" });
    this.yes.focus();
  }

  close(): void {
    const had = this.element.contains(document.activeElement);
    this.element.hidden = true;
    this.then = null;
    if (had) (this.from?.isConnected ? this.from : this.otherwise).focus();
    this.from = null;
  }
}
