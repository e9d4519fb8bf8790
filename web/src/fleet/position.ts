// A row of the table `current_positions`, parsed once at the edge.
import { array, number, numberOrNull, object, parse, text, textOrNull, timeOrNull } from "../net/json.ts";

export const KINDS = ["airliner", "cargo", "private", "helicopter", "military"] as const;
export type Kind = (typeof KINDS)[number] | "other";
export const ALL_KINDS: readonly Kind[] = [...KINDS, "other"];

export interface Position {
  id: string;
  callsign: string;
  kind: Kind;
  /** Degrees. */
  lat: number;
  lon: number;
  /** Feet. */
  altitude: number | null;
  /** Degrees clockwise from north. */
  heading: number;
  /** Knots over ground. */
  speed: number;
  /** Feet per minute. */
  verticalRate: number | null;
  squawk: string | null;
  /** Milliseconds since the epoch. */
  reportedAt: number | null;
}

export interface Change {
  upserts: Position[];
  deletes: string[];
}

export interface Snapshot {
  rows: Position[];
  last: boolean;
}

/** Squawk codes that every controller knows. */
const EMERGENCIES: ReadonlyMap<string, string> = new Map([
  ["7500", "unlawful interference"],
  ["7600", "radio failure"],
  ["7700", "general emergency"],
]);

export function emergencyOf(squawk: string | null): string | null {
  return squawk === null ? null : (EMERGENCIES.get(squawk) ?? null);
}

export function kindOf(value: unknown): Kind {
  return KINDS.find((kind) => kind === value) ?? "other";
}

/** A row, or null when it names no aircraft or no place. */
export function parsePosition(value: unknown): Position | null {
  const o = object(value);
  const id = text(o.id);
  const lat = numberOrNull(o.lat);
  const lon = numberOrNull(o.lon);
  if (id === "" || lat === null || lon === null || Math.abs(lat) > 90 || Math.abs(lon) > 180) return null;
  return {
    id,
    callsign: text(o.callsign).trim() || id,
    kind: kindOf(o.kind),
    lat,
    lon,
    altitude: numberOrNull(o.altitude),
    heading: number(o.heading),
    speed: Math.max(0, number(o.speed)),
    verticalRate: numberOrNull(o.vertical_rate),
    squawk: textOrNull(o.squawk),
    reportedAt: timeOrNull(o.reported_at),
  };
}

function positions(value: unknown): Position[] {
  return array(value).map(parsePosition).filter((row) => row !== null);
}

export function parseSnapshot(data: string): Snapshot {
  const o = object(parse(data));
  return { rows: positions(o.rows), last: o.last !== false };
}

export function parseChange(data: string): Change {
  const o = object(parse(data));
  const deletes = array(o.deletes).map((row) => text(object(row).id)).filter((id) => id !== "");
  return { upserts: positions(o.upserts), deletes };
}
