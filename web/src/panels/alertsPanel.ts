// Alerts as incidents, newest first; a click shows the aircraft on the map.
import { alertTitle, Incidents, parseAlert, type Alert, type Incident } from "../alerts/incidents.ts";
import { h, reconcile, setText, toggle } from "../dom.ts";
import { ago, clock, whole } from "../format.ts";
import type { SseEvent } from "../net/sse.ts";
import { Stream, type StreamState } from "../net/stream.ts";
import { icon } from "./icons.ts";

const SHOWN_MAX = 40;
/** Speaking more often than this would drown out everything else. */
const SPEAK_MS = 6_000;

export class AlertsPanel {
  readonly element: HTMLElement;
  private readonly incidents = new Incidents();
  private readonly list = h("ol", { class: "alerts" });
  private readonly count = h("span", { class: "count" });
  private readonly hint = h("p", { class: "hint" });
  private readonly speech = h("p", { class: "sr", role: "status", "aria-live": "polite" });
  private readonly stream: Stream;
  private spokenAt = 0;
  private caughtUp = false;

  constructor(private readonly onSelect: (alert: Alert) => void) {
    this.stream = new Stream({
      url: "/v1/topics/alerts/stream?from=tail:50",
      onEvents: (events) => { this.take(events); },
      onState: (state) => { this.note(state); },
    });
    this.element = h(
      "section",
      { class: "panel alerts-panel", "aria-labelledby": "alerts-title" },
      h("header", { class: "panel-head" }, h("h2", { id: "alerts-title" }, "Alerts"), this.count),
      this.list,
      this.hint,
      this.speech,
    );
  }

  start(): void {
    this.stream.start();
  }

  stop(): void {
    this.stream.stop();
  }

  retryNow(): void {
    this.stream.retryNow();
  }

  update(): void {
    const now = Date.now();
    const incidents = this.incidents.list(now).slice(0, SHOWN_MAX);
    reconcile(this.list, incidents, (i) => i.key, (i) => this.row(i), (row, i) => { updateRow(row, i, now); });
    setText(this.count, incidents.length === 0 ? "" : whole(incidents.length));
    this.hint.hidden = incidents.length > 0;
  }

  private note(state: StreamState): void {
    if (state.name === "live") {
      setText(this.hint, "No alerts. Emergencies and rapid descents will show here.");
      // What the tail brings first is history and is not read out.
      window.setTimeout(() => { this.caughtUp = true; }, 2_000);
    } else if (state.name === "refused") {
      setText(this.hint, state.error.status === 404 ? "There is no topic named alerts." : state.error.message);
    } else if (state.name === "waiting") {
      setText(this.hint, "Waiting for the host.");
    }
  }

  private take(events: SseEvent[]): void {
    for (const event of events) {
      if (event.type !== "record") continue;
      const alert = parseAlert(event.data);
      const added = alert && this.incidents.add(alert);
      if (added?.isNew && this.caughtUp) this.speak(added.incident);
    }
  }

  private speak({ latest }: Incident): void {
    const now = Date.now();
    if (now - this.spokenAt < SPEAK_MS) return;
    this.spokenAt = now;
    setText(this.speech, `${alertTitle(latest.alert)}: ${latest.callsign}. ${latest.message}`);
  }

  private row(incident: Incident): HTMLElement {
    const button = h(
      "button",
      { type: "button", class: "alert" },
      h("span", { class: "alert-icon" }),
      h("span", { class: "alert-body" }, h("span", { class: "alert-title" }), h("span", { class: "alert-text" })),
      h("span", { class: "alert-side" }, h("span", { class: "alert-when" }), h("span", { class: "alert-count" })),
    );
    button.addEventListener("click", () => { this.onSelect(incident.latest); });
    const item = h("li", {}, button);
    item.querySelector(".alert-icon")?.append(icon(incident.latest.alert === "rapid_descent" ? "descent" : "warning"));
    toggle(button, "is-emergency", incident.latest.alert === "emergency");
    return item;
  }
}

function updateRow(item: HTMLElement, incident: Incident, now: number): void {
  const put = (name: string, text: string): void => {
    const element = item.querySelector(`.${name}`);
    if (element) setText(element, text);
  };
  const { latest } = incident;
  put("alert-title", latest.callsign);
  put("alert-text", alertText(latest));
  put("alert-when", ago(now - incident.lastAt));
  put("alert-count", incident.count > 1 ? `× ${whole(incident.count)}` : "");
  item.title = `${latest.message}\n${latest.altitude === null ? "" : `at ${whole(latest.altitude)} ft, `}first ${clock(incident.firstAt)}, last ${clock(incident.lastAt)}`;
}

function alertText(alert: Alert): string {
  const parts = [alertTitle(alert.alert)];
  if (alert.alert === "rapid_descent" && alert.verticalRate !== null) parts.push(`${whole(Math.abs(alert.verticalRate))} ft/min`);
  else if (alert.squawk) parts.push(`squawk ${alert.squawk}`);
  return parts.join(" · ");
}
