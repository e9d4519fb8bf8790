// One dead letter, opened: where it came from, why it failed, its message as text, and what to do with it.
import { h, setText } from "../dom.ts";
import { bytes, moment, shortDigest, whole } from "../format.ts";
import { apiError, notDone } from "../net/api.ts";
import { shown } from "../net/content.ts";
import { drop, readLetter, redrive, type WholeLetter } from "../net/letters.ts";

export class LetterCard {
  private readonly title = h("h3", { tabindex: -1 });
  private readonly facts = h("dl", { class: "fact-list" });
  private readonly size = h("h4");
  private readonly payload = h("pre", { class: "payload", tabindex: 0, "aria-label": "Payload" });
  private readonly redriveButton = h("button", { type: "button", class: "button" }, "Redrive");
  private readonly dropButton = h("button", { type: "button", class: "button is-danger" }, "Drop");
  private readonly closeButton = h("button", { type: "button", class: "button" }, "Close");
  private readonly said = h("p", { role: "status" });
  readonly element: HTMLElement;

  private id: number | null = null;
  private busy = false;

  /** `changed` hears of a letter that was queued or dropped, `closed` that the card was closed. */
  constructor(private readonly changed: () => void, private readonly closed: (id: number) => void) {
    this.element = h(
      "section",
      { class: "card opened", "aria-label": "Dead letter", hidden: true },
      h("header", { class: "card-head" }, this.title, h("div", { class: "actions" }, this.redriveButton, this.dropButton, this.closeButton)),
      this.said,
      this.facts,
      this.size,
      this.payload,
    );
    this.redriveButton.addEventListener("click", () => { void this.work(async (id) => ((await redrive({ ids: [id] })) > 0 ? "Queued: its stage runs it again in a moment." : "It is queued already.")); });
    this.dropButton.addEventListener("click", () => { void this.work(async (id) => ((await drop({ ids: [id] })).dropped > 0 ? "Dropped." : "It is gone already.")); });
    this.closeButton.addEventListener("click", () => { this.close(); });
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.close();
    });
  }

  async open(id: number): Promise<void> {
    this.id = id;
    this.element.hidden = false;
    setText(this.title, `Dead letter ${id}`);
    setText(this.said, "");
    this.facts.replaceChildren();
    setText(this.size, "");
    setText(this.payload, "");
    this.title.focus();
    try {
      const letter = await readLetter(id);
      if (this.id === id) this.fill(letter);
    } catch (caught) {
      if (this.id === id) setText(this.said, apiError(caught).message);
    }
  }

  close(): void {
    const id = this.id;
    this.id = null;
    this.element.hidden = true;
    if (id !== null) this.closed(id);
  }

  private fill(letter: WholeLetter): void {
    const now = Date.now();
    const facts: [string, string][] = [
      ["Group", letter.group],
      ["Stage", letter.stage],
      ["Component", shortDigest(letter.digest)],
      ["Message", `${letter.topic} partition ${letter.partition} offset ${whole(letter.offset)}`],
      ["Time", letter.timestamp === null ? "–" : new Date(letter.timestamp).toISOString()],
      ["Failed", letter.failedAt === null ? "–" : moment(letter.failedAt, now)],
      ["Attempts", whole(letter.attempts)],
      ["State", letter.state],
      ["Error", `${letter.kind}: ${letter.error}`],
      ["Key", letter.key === null ? "–" : shown(letter.key)],
      ...letter.headers.map(({ name, value }): [string, string] => [`Header ${name}`, shown(value)]),
    ];
    this.facts.replaceChildren(...facts.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
    setText(this.size, `Payload, ${bytes(letter.bytes)}${letter.payload.binary ? ", in hex" : ""}`);
    setText(this.payload, letter.payload.text);
  }

  private async work(job: (id: number) => Promise<string>): Promise<void> {
    const id = this.id;
    if (id === null || this.busy) return;
    this.busy = true;
    for (const button of [this.redriveButton, this.dropButton]) button.setAttribute("aria-disabled", "true");
    try {
      setText(this.said, await job(id));
    } catch (caught) {
      setText(this.said, notDone(caught));
    }
    for (const button of [this.redriveButton, this.dropButton]) button.setAttribute("aria-disabled", "false");
    this.busy = false;
    this.changed();
  }
}
