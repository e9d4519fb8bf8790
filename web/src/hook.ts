// `window.tidemill`: what the page shows, to read but not to change. For the browser tests, and for anyone
// curious in the console.
import type { MapPage } from "./pages/mapPage.ts";

export interface ShownAircraft {
  id: string;
  callsign: string;
  kind: string;
  /** CSS pixels within the map. */
  x: number;
  y: number;
  /** The last report, not the reckoned place. */
  lat: number;
  lon: number;
  /** Reports taken from this aircraft. */
  reports: number;
}

export interface TidemillHook {
  /** The aircraft of the last frame that lie in or near the map's view. */
  aircraft(): ShownAircraft[];
  /** How many aircraft are known, in view or not. */
  known(): number;
  /** Reports taken since the page was opened. */
  reports(): number;
  /** The state of the position stream: idle, connecting, live, waiting or refused. */
  connection(): string;
  selected(): string | null;
  /** 1 when the whole country fits. */
  zoom(): number;
}

declare global {
  interface Window {
    tidemill?: Readonly<TidemillHook>;
  }
}

export function installHook(page: MapPage): void {
  window.tidemill = Object.freeze({
    aircraft: () =>
      page.map.drawn.map(({ aircraft, x, y }) => {
        const { id, callsign, kind, lat, lon } = aircraft.report;
        return { id, callsign, kind, x, y, lat, lon, reports: aircraft.reports };
      }),
    known: () => page.fleet.aircraft.size,
    reports: () => page.fleet.reports,
    connection: () => page.streamState.name,
    selected: () => page.map.selected,
    zoom: () => page.map.zoom,
  });
}
