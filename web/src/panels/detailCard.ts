// The selected aircraft in full.
import { h, setText, toggle } from "../dom.ts";
import type { Aircraft } from "../fleet/aircraft.ts";
import { ago, compass, coordinates, NONE, whole } from "../format.ts";
import { KIND_NAMES } from "./aircraftPanel.ts";
import { icon, kindIcon } from "./icons.ts";

export interface DetailActions {
  onClose: () => void;
  onCentre: () => void;
  onFollow: (follow: boolean) => void;
}

const FIELDS = ["Altitude", "Vertical rate", "Speed", "Heading", "Squawk", "Last report"] as const;
type Field = (typeof FIELDS)[number];

export class DetailCard {
  readonly element: HTMLElement;
  private readonly mark = h("span", { class: "detail-mark" });
  private readonly name = h("h2", { id: "detail-title" });
  private readonly kind = h("p", { class: "detail-kind" });
  private readonly alarm = h("p", { class: "detail-alarm" });
  private readonly place = h("p", { class: "detail-place" });
  private readonly values = new Map<Field, HTMLElement>();
  private readonly follow = h("button", { type: "button", class: "button", "aria-pressed": "false" }, icon("target"), "Follow");

  constructor(actions: DetailActions) {
    const facts = h("dl", { class: "facts" });
    for (const field of FIELDS) {
      const value = h("dd");
      this.values.set(field, value);
      facts.append(h("div", {}, h("dt", {}, field), value));
    }
    const close = h("button", { type: "button", class: "icon-button", "aria-label": "Close details" }, icon("close"));
    const centre = h("button", { type: "button", class: "button" }, "Centre");
    close.addEventListener("click", actions.onClose);
    centre.addEventListener("click", actions.onCentre);
    this.follow.addEventListener("click", () => { actions.onFollow(this.follow.getAttribute("aria-pressed") !== "true"); });
    this.element = h(
      "section",
      { class: "detail", "aria-labelledby": "detail-title", hidden: true },
      h("header", { class: "detail-head" }, this.mark, h("div", { class: "detail-names" }, this.name, this.kind), close),
      this.alarm,
      facts,
      h("footer", { class: "detail-foot" }, this.place, h("div", { class: "detail-actions" }, centre, this.follow)),
    );
    this.element.addEventListener("keydown", (event) => {
      if (event.key === "Escape") actions.onClose();
    });
  }

  show(aircraft: Aircraft | null, follow: boolean, now: number): void {
    this.element.hidden = aircraft === null;
    if (!aircraft) return;
    const { report } = aircraft;
    if (this.mark.dataset.kind !== report.kind) {
      this.mark.dataset.kind = report.kind;
      this.mark.replaceChildren(kindIcon(report.kind));
    }
    toggle(this.element, "is-emergency", aircraft.emergency !== null);
    setText(this.name, report.callsign);
    setText(this.kind, `${KIND_NAMES[report.kind]} · ${report.id}`);
    setText(this.alarm, aircraft.emergency ? `Squawk ${report.squawk ?? ""}: ${aircraft.emergency}` : "");
    this.alarm.hidden = aircraft.emergency === null;
    this.set("Altitude", report.altitude, (v) => `${whole(v)} ft`);
    this.set("Vertical rate", report.verticalRate, (v) => `${v > 0 ? "+" : v < 0 ? "−" : ""}${whole(Math.abs(v))} ft/min`);
    this.set("Speed", report.speed, (v) => `${whole(v)} kt`);
    this.set("Heading", report.heading, (v) => `${whole(v)}° ${compass(v)}`);
    setText(this.values.get("Squawk") ?? this.place, report.squawk ?? NONE);
    setText(this.values.get("Last report") ?? this.place, ago(now - aircraft.reportedMs));
    setText(this.place, coordinates(report.lat, report.lon));
    this.follow.setAttribute("aria-pressed", String(follow));
  }

  private set(field: Field, value: number | null, format: (value: number) => string): void {
    const element = this.values.get(field);
    if (element) setText(element, value === null ? NONE : format(value));
  }
}
