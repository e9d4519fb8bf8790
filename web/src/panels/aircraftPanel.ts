// Finding aircraft: the legend that filters, a search, and a list that works from the keyboard.
import { h, reconcile, setText, toggle } from "../dom.ts";
import type { Aircraft } from "../fleet/aircraft.ts";
import type { Fleet } from "../fleet/fleet.ts";
import { ALL_KINDS, type Kind } from "../fleet/position.ts";
import { whole } from "../format.ts";
import { icon, kindIcon } from "./icons.ts";

/** Rows in the list; more would be scrolled past, so the search is asked to narrow instead. */
const ROWS_MAX = 80;

export const KIND_NAMES: Record<Kind, string> = {
  airliner: "Airliner",
  cargo: "Cargo",
  private: "Private",
  helicopter: "Helicopter",
  military: "Military",
  other: "Other",
};

/** Aircraft that match `query` (callsign, id or squawk), emergencies first, then by callsign. */
export function search(aircraft: Iterable<Aircraft>, query: string, hidden: ReadonlySet<Kind>): Aircraft[] {
  const wanted = query.trim().toLowerCase();
  const found: Aircraft[] = [];
  for (const one of aircraft) {
    const { callsign, kind, squawk } = one.report;
    if (hidden.has(kind) && !one.emergency) continue;
    const hit = wanted === "" || callsign.toLowerCase().includes(wanted) || one.id.toLowerCase().includes(wanted) || squawk === wanted;
    if (hit) found.push(one);
  }
  const order = (a: Aircraft, b: Aircraft): number => (a.report.callsign < b.report.callsign ? -1 : 1);
  return found.sort((a, b) => Number(b.emergency !== null) - Number(a.emergency !== null) || order(a, b));
}

export class AircraftPanel {
  readonly element: HTMLElement;
  readonly hidden = new Set<Kind>();
  private readonly input = h("input", {
    type: "search",
    id: "search",
    placeholder: "Callsign, id or squawk",
    autocomplete: "off",
    spellcheck: "false",
    "aria-controls": "aircraft-list",
  });
  private readonly list = h("ul", { class: "aircraft-list", id: "aircraft-list", "aria-label": "Aircraft" });
  private readonly total = h("span", { class: "count" });
  private readonly more = h("p", { class: "hint" });
  private readonly chips = new Map<Kind, { button: HTMLButtonElement; count: HTMLElement }>();
  private selected: string | null = null;

  constructor(
    private readonly fleet: Fleet,
    private readonly onSelect: (id: string) => void,
    private readonly onFilter: () => void,
  ) {
    const legend = h("div", { class: "legend", role: "group", "aria-label": "Show kinds" });
    for (const kind of ALL_KINDS) legend.append(this.chip(kind));
    this.element = h(
      "section",
      { class: "panel aircraft-panel", "aria-labelledby": "aircraft-title" },
      h("header", { class: "panel-head" }, h("h2", { id: "aircraft-title" }, "Aircraft"), this.total),
      legend,
      h("label", { class: "search" }, h("span", { class: "sr" }, "Search aircraft"), icon("search"), this.input),
      this.list,
      this.more,
    );
    this.input.addEventListener("input", () => { this.update(); });
    this.input.addEventListener("keydown", (event) => { this.inputKey(event); });
    this.list.addEventListener("keydown", (event) => { this.listKey(event); });
  }

  select(id: string | null): void {
    this.selected = id;
    this.update();
  }

  update(): void {
    const counts = this.fleet.counts();
    for (const [kind, { button, count }] of this.chips) {
      setText(count, whole(counts[kind]));
      button.hidden = kind === "other" && counts[kind] === 0;
    }
    setText(this.total, whole(this.fleet.aircraft.size));
    const found = search(this.fleet.aircraft.values(), this.input.value, this.hidden);
    reconcile(this.list, found.slice(0, ROWS_MAX), (a) => a.id, (a) => this.row(a), (row, a) => { this.updateRow(row, a); });
    setText(this.more, this.moreText(found.length));
    this.more.hidden = this.more.textContent === "";
  }

  private moreText(found: number): string {
    if (this.fleet.aircraft.size === 0) return "No aircraft yet.";
    if (found === 0) return "No aircraft matches.";
    if (found > ROWS_MAX) return `First ${ROWS_MAX} of ${whole(found)}. Type to narrow.`;
    return this.fleet.left.size > 0 ? "More aircraft report than this page keeps." : "";
  }

  private chip(kind: Kind): HTMLElement {
    const count = h("span", { class: "chip-count" });
    const button = h(
      "button",
      { type: "button", class: "chip", "aria-pressed": "true", title: `Show or hide: ${KIND_NAMES[kind].toLowerCase()}` },
      kindIcon(kind),
      h("span", {}, KIND_NAMES[kind]),
      count,
    );
    button.addEventListener("click", () => {
      const hide = !this.hidden.has(kind);
      if (hide) this.hidden.add(kind);
      else this.hidden.delete(kind);
      button.setAttribute("aria-pressed", String(!hide));
      this.onFilter();
      this.update();
    });
    this.chips.set(kind, { button, count });
    return button;
  }

  private row(aircraft: Aircraft): HTMLElement {
    const button = h(
      "button",
      { type: "button", class: "row" },
      h("span", { class: "row-mark" }),
      h("span", { class: "row-name" }),
      h("span", { class: "row-alt" }),
    );
    button.addEventListener("click", () => { this.onSelect(aircraft.id); });
    return h("li", {}, button);
  }

  private updateRow(item: HTMLElement, aircraft: Aircraft): void {
    const [button] = item.children;
    const [mark, name, altitude] = button?.children ?? [];
    if (!button || !mark || !name || !altitude) return;
    const { report } = aircraft;
    const look = aircraft.emergency ? "emergency" : report.kind;
    if (mark.getAttribute("data-look") !== look) {
      mark.setAttribute("data-look", look);
      mark.replaceChildren(kindIcon(report.kind));
      toggle(button, "is-emergency", aircraft.emergency !== null);
    }
    setText(name, report.callsign);
    setText(altitude, aircraft.emergency ? (report.squawk ?? "") : report.altitude === null ? "" : `${whole(report.altitude)} ft`);
    const isSelected = aircraft.id === this.selected;
    toggle(button, "is-selected", isSelected);
    if (isSelected) button.setAttribute("aria-current", "true");
    else button.removeAttribute("aria-current");
  }

  private inputKey(event: KeyboardEvent): void {
    const first = this.list.querySelector("button");
    if (event.key === "ArrowDown" && first) {
      event.preventDefault();
      first.focus();
    } else if (event.key === "Enter" && first) {
      event.preventDefault();
      first.click();
    }
  }

  /** Up and down walk the rows, so that Tab leaves the list instead of crawling through it. */
  private listKey(event: KeyboardEvent): void {
    if (event.key !== "ArrowDown" && event.key !== "ArrowUp") return;
    const item = document.activeElement?.closest("li");
    if (!item) return;
    event.preventDefault();
    const next = event.key === "ArrowDown" ? item.nextElementSibling : item.previousElementSibling;
    const button = next?.querySelector("button");
    if (button) button.focus();
    else if (event.key === "ArrowUp") this.input.focus();
  }
}
