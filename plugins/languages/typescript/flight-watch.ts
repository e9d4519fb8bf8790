/**
 * Watches position reports for approaches to airports (port `default`) and for trouble (port `alerts`).
 *
 * The same plugin as `plugins/flight-watch` in Rust; `plugins/conformance/flight-watch` holds both to the same bytes.
 */
import { type Emit, Reject, defineTransform, jsonOf } from "../../sdk-js/tidemill";
import { AIRPORTS } from "./airports";

interface Config {
  /** Nautical miles from the airport. */
  approach_nm: number;
  /** Feet above the airport. */
  approach_ft: number;
  /** Feet per minute downwards. */
  rapid_descent_fpm: number;
}

const DEFAULTS: Config = { approach_nm: 25, approach_ft: 6000, rapid_descent_fpm: 4000 };

export const { lifecycle, transforming } = defineTransform<Partial<Config>>({
  name: "flight-watch",
  version: "0.1.0",
  description: "Finds approaches to airports, emergencies and rapid descents in position reports",
  configSchema: {
    type: "object",
    additionalProperties: false,
    properties: {
      approach_nm: {
        description: "How near to a major airport an approach is, in nautical miles.",
        type: "number",
        exclusiveMinimum: 0,
        maximum: 200,
        default: DEFAULTS.approach_nm,
      },
      approach_ft: {
        description: "Below which height above the airport an approach is, in feet.",
        type: "integer",
        minimum: 1,
        maximum: 60000,
        default: DEFAULTS.approach_ft,
      },
      rapid_descent_fpm: {
        description: "From which rate on a descent is rapid, in feet per minute downwards.",
        type: "integer",
        minimum: 1,
        maximum: 60000,
        default: DEFAULTS.rapid_descent_fpm,
      },
    },
  },
  ports: { alerts: "Emergency squawks and rapid descents, one record for each report that shows one" },
  setup(given) {
    const config = { ...DEFAULTS, ...given };
    return (message, emit) => {
      const report = reportOf(jsonOf(message));
      watchApproach(report, config, emit);
      watchSquawk(report, emit);
      watchDescent(report, config, emit);
    };
  },
});

// ---- Reports

interface Report {
  id: string;
  callsign: string;
  kind: string;
  lat: number;
  lon: number;
  altitude: number;
  speed: number;
  vertical_rate: number;
  squawk: string;
  ts: number;
}

/** Unknown fields are left alone. */
function reportOf(json: unknown): Report {
  if (typeof json !== "object" || json === null || Array.isArray(json)) {
    throw new Reject("payload: not a JSON object");
  }
  const fields = json as Record<string, unknown>;
  return {
    id: text(fields, "id"),
    callsign: text(fields, "callsign"),
    kind: text(fields, "kind"),
    lat: within(fields, "lat", -90, 90),
    lon: within(fields, "lon", -180, 180),
    altitude: whole(fields, "altitude"),
    speed: within(fields, "speed", 0, 10000),
    vertical_rate: whole(fields, "vertical_rate"),
    squawk: text(fields, "squawk"),
    ts: whole(fields, "ts"),
  };
}

function fault(fields: Record<string, unknown>, name: string, expected: string): Reject {
  return new Reject(`payload: field \`${name}\`: ${Object.hasOwn(fields, name) ? expected : "missing"}`);
}

/** Half of a surrogate pair is no text. */
function text(fields: Record<string, unknown>, name: string): string {
  const value = fields[name];
  if (typeof value !== "string" || !value.isWellFormed()) throw fault(fields, name, "not a string");
  return value;
}

function within(fields: Record<string, unknown>, name: string, min: number, max: number): number {
  const value = fields[name];
  if (typeof value !== "number" || value < min || value > max) throw fault(fields, name, `not from ${min} to ${max}`);
  return value;
}

function whole(fields: Record<string, unknown>, name: string): number {
  const value = fields[name];
  if (typeof value !== "number" || !Number.isSafeInteger(value)) {
    throw fault(fields, name, "not a whole number of at most 53 bits");
  }
  return value;
}

// ---- What is written

/** Rounded, halves up; without an exponent, with at least one digit after the point: `39.0`. */
function decimal(value: number, places: number): string {
  const scale = 10 ** places;
  const rounded = Math.floor(value * scale + 0.5) / scale;
  return Number.isInteger(rounded) ? `${rounded}.0` : `${rounded}`;
}

const string = JSON.stringify as (value: string) => string;

// ---- Approaches

/** Nautical miles in the Earth's mean radius. */
const EARTH_RADIUS_NM = 3440.069;
/** One minute of latitude is one nautical mile. */
const NM_PER_DEGREE = 60;

const radians = (degrees: number): number => degrees * (Math.PI / 180);

/** The great-circle distance, by the haversine formula. */
function distanceNm(lat1: number, lon1: number, lat2: number, lon2: number): number {
  const halfLat = Math.sin((radians(lat2) - radians(lat1)) / 2);
  const halfLon = Math.sin(radians(lon2 - lon1) / 2);
  const h = halfLat * halfLat + Math.cos(radians(lat1)) * Math.cos(radians(lat2)) * halfLon * halfLon;
  return 2 * EARTH_RADIUS_NM * Math.asin(Math.min(Math.sqrt(h), 1));
}

function watchApproach(r: Report, config: Config, emit: Emit): void {
  if (r.vertical_rate >= 0) return;
  // Latitude alone rules out most airports, at the price of a subtraction.
  const band = (config.approach_nm / NM_PER_DEGREE) * 1.01;
  let airport = "";
  let distance = Infinity;
  for (const [code, lat, lon, elevationFt] of AIRPORTS) {
    if (Math.abs(lat - r.lat) > band || r.altitude - elevationFt >= config.approach_ft) continue;
    const there = distanceNm(lat, lon, r.lat, r.lon);
    if (there < distance) [airport, distance] = [code, there];
  }
  if (distance > config.approach_nm) return;
  const payload =
    `{"id":${string(r.id)},"callsign":${string(r.callsign)},"kind":${string(r.kind)},"airport":"${airport}"` +
    `,"distance_nm":${decimal(distance, 1)},"altitude":${r.altitude},"speed":${decimal(r.speed, 1)}` +
    `,"vertical_rate":${r.vertical_rate},"lat":${decimal(r.lat, 5)},"lon":${decimal(r.lon, 5)},"ts":${r.ts}}`;
  emit({ key: r.id, payload });
}

// ---- Alerts

const EMERGENCIES: ReadonlyMap<string, string> = new Map([
  ["7500", "unlawful interference"],
  ["7600", "radio failure"],
  ["7700", "general emergency"],
]);

function watchSquawk(r: Report, emit: Emit): void {
  const meaning = EMERGENCIES.get(r.squawk);
  if (meaning) alert(r, "emergency", `${r.callsign} squawks ${r.squawk} (${meaning}) at ${grouped(r.altitude)} ft`, emit);
}

function watchDescent(r: Report, config: Config, emit: Emit): void {
  if (r.vertical_rate > -config.rapid_descent_fpm) return;
  const sentence = `${r.callsign} descends at ${grouped(-r.vertical_rate)} ft/min through ${grouped(r.altitude)} ft`;
  alert(r, "rapid_descent", sentence, emit);
}

function alert(r: Report, cause: string, sentence: string, emit: Emit): void {
  const payload =
    `{"id":${string(r.id)},"callsign":${string(r.callsign)},"kind":${string(r.kind)},"alert":"${cause}"` +
    `,"squawk":${string(r.squawk)},"altitude":${r.altitude},"vertical_rate":${r.vertical_rate}` +
    `,"lat":${decimal(r.lat, 5)},"lon":${decimal(r.lon, 5)},"ts":${r.ts},"message":${string(sentence)}}`;
  emit({ port: "alerts", key: r.id, payload });
}

/** With a comma before each three digits. */
const grouped = (whole: number): string => `${whole}`.replace(/\B(?=(\d{3})+$)/g, ",");
