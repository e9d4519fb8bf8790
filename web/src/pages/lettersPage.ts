// Dead letters: how many each group has, a list of them, and one opened. Redriving and dropping, one or all of a group.
import { h, reconcile, setText } from "../dom.ts";
import { moment, whole } from "../format.ts";
import { apiError, notDone } from "../net/api.ts";
import { drop, listLetters, redrive, type Letter } from "../net/letters.ts";
import type { HostView, LetterCount } from "../net/status.ts";
import { LetterCard } from "../panels/letterCard.ts";
import { href, type Route } from "../router.ts";
import type { Page } from "./page.ts";

const GROUP_COLUMNS = ["Group", "Letters", "Queued", ""] as const;
const COLUMNS = ["Letter", "State", "Group", "Message", "Kind", "Attempts", "Failed", "Error"] as const;
const WORDS: ReadonlySet<string> = new Set(["State", "Group", "Message", "Kind", "Failed", "Error", ""]);

/** Where the host stops counting. */
const COUNTED = 100_000;

export class LettersPage implements Page {
  readonly title = "Letters";
  readonly element: HTMLElement;
  private readonly empty = h("p", { class: "hint" }, "Waiting for the host.");
  private readonly groups = h("tbody");
  private readonly rows = h("tbody");
  private readonly heading = h("h2", { class: "page-section" });
  private readonly all = h("a", { href: href({ page: "letters", group: null }), hidden: true }, "Show those of all groups");
  private readonly more = h("button", { type: "button", class: "button", hidden: true }, "Show more");
  private readonly said = h("p", { role: "status" });
  private readonly question = h("p");
  private readonly yes = h("button", { type: "button", class: "button is-danger" }, "Drop them");
  private readonly no = h("button", { type: "button", class: "button" }, "Cancel");
  private readonly confirm = h("div", { class: "confirm", role: "group", "aria-label": "Confirm", hidden: true }, this.question, h("div", { class: "actions" }, this.yes, this.no));
  private readonly card = new LetterCard(() => { void this.load(false); }, (id) => { this.focusRow(id); });

  private group: string | null = null;
  private doomed: string | null = null;
  private letters: Letter[] = [];
  private next: number | null = null;
  private counts = "";
  private request: AbortController | null = null;

  constructor() {
    this.element = h(
      "div",
      { class: "page" },
      h("h1", {}, "Dead letters"),
      this.empty,
      table(GROUP_COLUMNS, "Groups with dead letters", this.groups),
      this.confirm,
      this.said,
      this.heading,
      this.all,
      table(COLUMNS, "Dead letters", this.rows),
      this.more,
      this.card.element,
    );
    this.more.addEventListener("click", () => { void this.load(true); });
    this.no.addEventListener("click", () => { this.endQuestion(); });
    this.yes.addEventListener("click", () => { void this.dropGroup(); });
    this.confirm.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.endQuestion();
    });
  }

  show(route: Route): void {
    this.group = route.page === "letters" ? route.group : null;
    this.all.hidden = this.group === null;
    setText(this.heading, this.group === null ? "Newest first" : `Of group ${this.group}, newest first`);
    void this.load(false);
  }

  hide(): void {
    this.request?.abort();
  }

  onTheme(): void {
    // Colours come from the stylesheet.
  }

  onHost({ status }: HostView): void {
    if (!status) return;
    const counts = status.deadLetters;
    this.empty.hidden = counts.length > 0;
    setText(this.empty, "No stage has given up on a message.");
    reconcile(this.groups, counts, (c) => c.group, (c) => this.groupRow(c), updateGroup);
    // The list is read again when the counts say that it changed.
    const mark = JSON.stringify(counts);
    if (mark !== this.counts && this.counts !== "") void this.load(false);
    this.counts = mark;
  }

  private groupRow({ group }: LetterCount): HTMLTableRowElement {
    const again = h("button", { type: "button", class: "button", "aria-label": `Redrive all of ${group}` }, "Redrive all");
    const gone = h("button", { type: "button", class: "button is-danger", "aria-label": `Drop all of ${group}` }, "Drop all…");
    again.addEventListener("click", () => { void this.redriveGroup(group); });
    gone.addEventListener("click", () => { this.ask(group); });
    const link = h("a", { href: href({ page: "letters", group }) }, group);
    return h("tr", {}, h("th", { scope: "row" }, link), h("td"), h("td"), h("td", { class: "words" }, h("div", { class: "actions" }, again, gone)));
  }

  private async load(further: boolean): Promise<void> {
    this.request?.abort();
    const request = new AbortController();
    this.request = request;
    try {
      const page = await listLetters(this.group, further ? this.next : null, request.signal);
      this.letters = further ? [...this.letters, ...page.letters] : page.letters;
      this.next = page.next;
      this.more.hidden = page.next === null;
      reconcile(this.rows, this.letters, (l) => String(l.id), (l) => this.letterRow(l), updateLetter);
    } catch (caught) {
      if (!request.signal.aborted) setText(this.said, apiError(caught).message);
    }
  }

  private letterRow({ id }: Letter): HTMLTableRowElement {
    const open = h("button", { type: "button", class: "button", "aria-label": `Open dead letter ${id}` }, String(id));
    open.addEventListener("click", () => { void this.card.open(id); });
    const row = h("tr", {}, h("th", { scope: "row" }, open));
    for (const name of COLUMNS.slice(1)) row.append(h("td", { class: WORDS.has(name) ? "words" : null }));
    row.lastElementChild?.classList.add("one-line");
    return row;
  }

  private focusRow(id: number): void {
    const row = [...this.rows.children].find((child) => (child as HTMLElement).dataset.key === String(id));
    (row?.querySelector("button") ?? this.more).focus();
  }

  private ask(group: string): void {
    this.doomed = group;
    setText(this.question, `Drop all dead letters of group ${group} for good?`);
    this.confirm.hidden = false;
    this.yes.focus();
  }

  private endQuestion(): void {
    const row = [...this.groups.children].find((child) => (child as HTMLElement).dataset.key === this.doomed);
    this.confirm.hidden = true;
    this.doomed = null;
    row?.querySelector<HTMLElement>(".is-danger")?.focus();
  }

  private async redriveGroup(group: string): Promise<void> {
    await this.work(async () => `${whole(await redrive({ group }))} queued: group ${group} runs them again.`);
  }

  private async dropGroup(): Promise<void> {
    const group = this.doomed;
    this.endQuestion();
    if (group === null) return;
    await this.work(async () => {
      let sum = 0;
      for (;;) {
        const { dropped, more } = await drop({ group });
        sum += dropped;
        if (!more) return `${whole(sum)} dropped.`;
      }
    });
  }

  private async work(job: () => Promise<string>): Promise<void> {
    try {
      setText(this.said, await job());
    } catch (caught) {
      setText(this.said, notDone(caught));
    }
    await this.load(false);
  }
}

function table(columns: readonly string[], label: string, body: HTMLElement): HTMLElement {
  const head = columns.map((name) => h("th", { scope: "col", class: WORDS.has(name) ? "words" : null }, name === "" ? h("span", { class: "sr" }, "What to do") : name));
  return h("div", { class: "card scroll", tabindex: 0, role: "region", "aria-label": label }, h("table", {}, h("thead", {}, h("tr", {}, ...head)), body));
}

function updateGroup(row: HTMLElement, { letters, queued }: LetterCount): void {
  put(row, 1, letters >= COUNTED ? `${whole(COUNTED)} or more` : whole(letters));
  put(row, 2, whole(queued));
}

function updateLetter(row: HTMLElement, letter: Letter): void {
  const texts = [
    letter.state,
    letter.group,
    `${letter.topic} ${letter.partition}:${letter.offset}`,
    letter.kind,
    whole(letter.attempts),
    letter.failedAt === null ? "–" : moment(letter.failedAt, Date.now()),
    letter.error,
  ];
  texts.forEach((text, index) => { put(row, index + 1, text); });
}

function put(row: HTMLElement, index: number, text: string): void {
  const cell = row.children[index];
  if (cell) setText(cell, text);
}
