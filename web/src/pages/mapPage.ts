// The map with its panels: the page a stranger sees first.
import { h, setText, toggle } from "../dom.ts";
import { describeFeed } from "../fleet/feed.ts";
import { Fleet } from "../fleet/fleet.ts";
import { parseChange, parseSnapshot } from "../fleet/position.ts";
import { whole } from "../format.ts";
import { MapView } from "../map/mapview.ts";
import type { Drawn } from "../map/painter.ts";
import { project } from "../map/projection.ts";
import { ZOOM_STEP } from "../map/gestures.ts";
import type { SseEvent } from "../net/sse.ts";
import type { HostView } from "../net/status.ts";
import { Stream, type StreamState } from "../net/stream.ts";
import { AircraftPanel, KIND_NAMES } from "../panels/aircraftPanel.ts";
import { AlertsPanel } from "../panels/alertsPanel.ts";
import { DetailCard } from "../panels/detailCard.ts";
import { icon, type IconName } from "../panels/icons.ts";
import { StreamPanel } from "../panels/streamPanel.ts";
import type { Page } from "./page.ts";

const TABLE = "current_positions";
const PANEL_MS = 500;

export class MapPage implements Page {
  readonly title = "Map";
  readonly element: HTMLElement;
  readonly fleet = new Fleet();
  readonly map: MapView;
  private readonly aircraftPanel: AircraftPanel;
  private readonly alerts: AlertsPanel;
  private readonly streamPanel = new StreamPanel();
  private readonly detail: DetailCard;
  private readonly tooltip = h("div", { class: "tooltip", "aria-hidden": true, hidden: true });
  private readonly feed = h("p", { class: "feed" }, h("span", { class: "feed-dot" }), h("span", { class: "feed-label" }), h("span", { class: "feed-detail" }));
  private readonly missing = h("div", { class: "missing", hidden: true });
  private readonly announce = h("p", { class: "sr", role: "status", "aria-live": "polite" });
  private readonly stream: Stream;
  private timer: number | undefined;
  private hostAway = false;

  constructor() {
    this.stream = new Stream({
      url: `/v1/tables/${TABLE}/stream?interval=250`,
      onEvents: (events) => { this.take(events); },
      onState: (state) => { this.note(state); },
    });
    this.map = new MapView(this.fleet, {
      onSelect: (id) => { this.select(id); },
      onHover: (drawn) => { this.hover(drawn); },
    });
    this.aircraftPanel = new AircraftPanel(this.fleet, (id) => { this.select(id, true); }, () => { this.map.hidden = new Set(this.aircraftPanel.hidden); });
    this.alerts = new AlertsPanel((alert) => {
      this.select(alert.id, true);
      if (!this.fleet.aircraft.has(alert.id) && alert.lat !== null && alert.lon !== null) this.map.centreOnWorld(project(alert.lat, alert.lon));
    });
    this.detail = new DetailCard({
      onClose: () => { this.select(null); this.map.element.focus(); },
      onCentre: () => { if (this.map.selected !== null) this.map.centreOn(this.map.selected); },
      onFollow: (follow) => { this.follow(follow); },
    });
    this.element = h(
      "div",
      { class: "map-page" },
      h("h1", { class: "sr" }, "Live map of aircraft"),
      h("div", { class: "map-cell" }, this.map.element, this.feed, this.controls(), this.tooltip, this.missing, this.keys()),
      h(
        "div",
        { class: "side" },
        h("div", { class: "left-column" }, this.detail.element, this.aircraftPanel.element),
        h("div", { class: "right-column" }, this.streamPanel.summary, this.alerts.element, this.streamPanel.details),
      ),
      this.announce,
    );
  }

  get streamState(): StreamState {
    return this.stream.state;
  }

  show(): void {
    this.stream.start();
    this.alerts.start();
    this.map.start();
    window.clearInterval(this.timer);
    this.timer = window.setInterval(() => { this.refresh(); }, PANEL_MS);
    this.refresh();
  }

  hide(): void {
    this.stream.stop();
    this.alerts.stop();
    this.map.stop();
    window.clearInterval(this.timer);
  }

  onHost(view: HostView): void {
    this.streamPanel.update(view);
    // The host is back: no need to sit out the rest of the wait.
    if (this.hostAway && !view.failing) {
      this.stream.retryNow();
      this.alerts.retryNow();
    }
    this.hostAway = view.failing !== null;
  }

  onTheme(): void {
    this.map.repaint();
  }

  select(id: string | null, fly = false): void {
    const changed = this.map.selected !== id;
    this.map.selected = id;
    if (changed) this.map.follow = false;
    if (id !== null && fly) this.map.centreOn(id);
    this.aircraftPanel.select(id);
    const aircraft = id === null ? undefined : this.fleet.aircraft.get(id);
    if (changed && aircraft) setText(this.announce, `Selected ${aircraft.report.callsign}, ${KIND_NAMES[aircraft.report.kind]}`);
    this.refresh();
    // Where the panels lie below the map, the details may be out of sight.
    if (changed && aircraft) this.detail.element.scrollIntoView({ block: "nearest" });
  }

  private follow(follow: boolean): void {
    const id = this.map.selected;
    this.map.follow = follow;
    if (follow && id !== null) this.map.centreOn(id);
    this.refresh();
  }

  private take(events: SseEvent[]): void {
    const now = performance.now();
    for (const event of events) {
      if (event.type === "snapshot") this.fleet.applySnapshot(parseSnapshot(event.data), now);
      else if (event.type === "change") this.fleet.applyChange(parseChange(event.data), now);
    }
  }

  private note(state: StreamState): void {
    if (state.name !== "live") this.fleet.connectionLost();
    const isMissing = state.name === "refused" && state.error.status === 404;
    this.missing.hidden = !isMissing;
    if (isMissing && this.missing.childElementCount === 0) {
      this.missing.append(
        h("h2", {}, `No table named ${TABLE}`),
        h("p", {}, "This page's map shows the aircraft sample. Start it with ", h("code", {}, "tidemill up pipelines/aircraft.toml"), ", and the map fills by itself."),
        h("p", {}, "The panels, the pipelines and the topics work for every pipeline."),
      );
    }
    this.showFeed();
  }

  private showFeed(): void {
    const { lastReportMs } = this.fleet;
    const last = lastReportMs === 0 ? null : lastReportMs + performance.timeOrigin;
    const feed = describeFeed(this.stream.state, last, Date.now());
    const [dot, label, detail] = this.feed.children;
    if (!dot || !label || !detail) return;
    // Spoken when it changes for better or worse; the seconds that count down are for the eye.
    if (this.feed.dataset.tone !== undefined && this.feed.dataset.tone !== feed.tone) setText(this.announce, `Map data: ${feed.label}`);
    this.feed.dataset.tone = feed.tone;
    setText(label, feed.label);
    setText(detail, feed.tone === "live" ? `${whole(this.fleet.aircraft.size)} aircraft` : feed.detail);
    toggle(this.map.element, "is-stale", feed.tone === "stale");
  }

  private refresh(): void {
    const id = this.map.selected;
    this.aircraftPanel.update();
    this.alerts.update();
    this.detail.show(id === null ? null : (this.fleet.aircraft.get(id) ?? null), this.map.follow, performance.now());
    this.showFeed();
  }

  private hover(drawn: Drawn | null): void {
    this.tooltip.hidden = drawn === null;
    if (!drawn) return;
    const { report } = drawn.aircraft;
    const altitude = report.altitude === null ? "" : ` · ${whole(report.altitude)} ft`;
    if (this.tooltip.childElementCount === 0) this.tooltip.append(h("strong"), h("span"));
    const [name, facts] = this.tooltip.children;
    if (name) setText(name, report.callsign);
    if (facts) setText(facts, `${KIND_NAMES[report.kind]}${altitude} · ${whole(report.speed)} kt`);
    const flip = drawn.x > this.map.element.clientWidth - 230;
    this.tooltip.style.setProperty("transform", `translate(${(drawn.x + (flip ? -16 : 16)).toFixed(1)}px, ${(drawn.y - 14).toFixed(1)}px) translateX(${flip ? "-100%" : "0"})`);
  }

  private controls(): HTMLElement {
    const button = (name: IconName, label: string, act: () => void): HTMLElement => {
      const element = h("button", { type: "button", class: "icon-button", "aria-label": label, title: label }, icon(name));
      element.addEventListener("click", act);
      return element;
    };
    return h(
      "div",
      { class: "map-controls", role: "group", "aria-label": "Zoom" },
      button("plus", "Zoom in", () => { this.map.zoomBy(ZOOM_STEP); }),
      button("minus", "Zoom out", () => { this.map.zoomBy(1 / ZOOM_STEP); }),
      button("home", "Whole country", () => { this.map.goHome(); }),
    );
  }

  private keys(): HTMLElement {
    return h("p", { class: "sr", id: "map-keys" }, "Arrow keys move the map, plus and minus zoom, 0 shows the whole country, Enter selects the aircraft nearest the middle, Escape drops the selection. The list of aircraft offers the same by name.");
  }
}
