// Alerts grouped into incidents: the same aircraft with the same kind of alert is one line that counts.
//
// Bounded to `INCIDENTS_MAX` incidents; the one that was silent longest makes room. Records that come again
// after a reconnect are recognised by their offset and not counted twice.
import { number, numberOrNull, object, parse, text, textOrNull, timeOrNull } from "../net/json.ts";
import { kindOf, type Kind } from "../fleet/position.ts";

export interface Alert {
  id: string;
  callsign: string;
  kind: Kind;
  alert: string;
  squawk: string | null;
  altitude: number | null;
  verticalRate: number | null;
  lat: number | null;
  lon: number | null;
  message: string;
  /** Milliseconds since the epoch. */
  at: number;
  partition: number;
  offset: number;
}

export interface Incident {
  key: string;
  latest: Alert;
  count: number;
  firstAt: number;
  lastAt: number;
}

export const INCIDENTS_MAX = 200;
/** An emergency heard of within this time goes on. */
const ONGOING_MS = 90_000;
/** An incident silent for this long is over; a later alert of its kind opens a new one. */
export const INCIDENT_GAP_MS = 5 * 60_000;

/** An alert out of the data of one `record` event, or null when it names no aircraft. */
export function parseAlert(data: string): Alert | null {
  const record = object(parse(data));
  const value = object(record.value);
  const id = text(value.id);
  if (id === "") return null;
  return {
    id,
    callsign: text(value.callsign).trim() || id,
    kind: kindOf(value.kind),
    alert: text(value.alert, "alert"),
    squawk: textOrNull(value.squawk),
    altitude: numberOrNull(value.altitude),
    verticalRate: numberOrNull(value.vertical_rate),
    lat: numberOrNull(value.lat),
    lon: numberOrNull(value.lon),
    message: text(value.message),
    at: timeOrNull(record.timestamp) ?? timeOrNull(value.ts) ?? 0,
    partition: number(record.partition),
    offset: number(record.offset),
  };
}

export class Incidents {
  private readonly open = new Map<string, Incident>();
  private readonly next = new Map<number, number>();
  private opened = 0;

  /** Takes an alert; says whether it opened a new incident, or null when it was seen before. */
  add(alert: Alert): { incident: Incident; isNew: boolean } | null {
    const next = this.next.get(alert.partition) ?? -1;
    if (alert.offset < next) return null;
    this.next.set(alert.partition, alert.offset + 1);
    const subject = `${alert.id}\n${alert.alert}`;
    const known = this.open.get(subject);
    if (known && Math.abs(alert.at - known.lastAt) <= INCIDENT_GAP_MS) {
      known.count += 1;
      if (alert.at >= known.lastAt) {
        known.latest = alert;
        known.lastAt = alert.at;
      }
      return { incident: known, isNew: false };
    }
    this.opened += 1;
    const incident = { key: `${this.opened}`, latest: alert, count: 1, firstAt: alert.at, lastAt: alert.at };
    this.open.set(subject, incident);
    this.makeRoom();
    return { incident, isNew: true };
  }

  /**
   * Incidents in an order that holds still while they count: emergencies that go on, then the one that began
   * last first. `now` is milliseconds since the epoch.
   */
  list(now: number): Incident[] {
    const urgent = (i: Incident): number => Number(i.latest.alert === "emergency" && now - i.lastAt < ONGOING_MS);
    return [...this.open.values()].sort(
      (a, b) => urgent(b) - urgent(a) || b.firstAt - a.firstAt || Number(b.key) - Number(a.key),
    );
  }

  private makeRoom(): void {
    if (this.open.size <= INCIDENTS_MAX) return;
    let oldest: string | null = null;
    let silentSince = Infinity;
    for (const [subject, incident] of this.open) {
      if (incident.lastAt < silentSince) {
        oldest = subject;
        silentSince = incident.lastAt;
      }
    }
    if (oldest !== null) this.open.delete(oldest);
  }
}

export function alertTitle(alert: string): string {
  if (alert === "rapid_descent") return "Rapid descent";
  if (alert === "emergency") return "Emergency";
  const words = alert.replaceAll("_", " ");
  return words.charAt(0).toUpperCase() + words.slice(1);
}
