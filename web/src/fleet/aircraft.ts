// One aircraft: its last report, and where it is between two reports.
//
// Position is dead reckoning in the projected plane: the last report plus its velocity. When a report
// disagrees with what was drawn, the difference is kept as an offset that fades within a second, so a mark
// glides onto the truth instead of jumping.
import { EARTH_RADIUS_KM, project, screenAngle, type Point } from "../map/projection.ts";
import { emergencyOf, type Position } from "./position.ts";
import { Trail } from "./trail.ts";

const KNOT_KM_PER_SECOND = 1.852 / 3600;
const RAD = Math.PI / 180;
/** After this long without a report an aircraft is held where reckoning left it, and drawn faint. */
export const STALE_MS = 60_000;
const FADE_MS = 350;
/** World units (about 60 km) beyond which a difference is a jump, not an error. */
const JUMP = 0.01;

/** Moves along a heading for a small distance; good to well under a percent for up to a few hundred km. */
export function advance(lat: number, lon: number, heading: number, km: number): { lat: number; lon: number } {
  const north = (km / EARTH_RADIUS_KM) * Math.cos(heading * RAD);
  const east = (km / EARTH_RADIUS_KM) * Math.sin(heading * RAD);
  return { lat: lat + north / RAD, lon: lon + east / RAD / Math.max(0.05, Math.cos((lat + north / RAD / 2) * RAD)) };
}

/** Velocity in world units per second of simulated flight. */
export function velocity(position: Position): Point {
  const here = project(position.lat, position.lon);
  const seconds = 10;
  const there = advance(position.lat, position.lon, position.heading, position.speed * KNOT_KM_PER_SECOND * seconds);
  const ahead = project(there.lat, there.lon);
  return { x: (ahead.x - here.x) / seconds, y: (ahead.y - here.y) / seconds };
}

export class Aircraft {
  readonly id: string;
  readonly trail = new Trail();
  report: Position;
  emergency: string | null = null;
  /** Angle on the page, clockwise from up in radians. */
  angle = 0;
  /** When the last report was true, on the page's clock in milliseconds. */
  reportedMs = 0;
  reports = 0;
  private origin: Point = { x: 0, y: 0 };
  private speed: Point = { x: 0, y: 0 };
  private error: Point = { x: 0, y: 0 };
  private errorMs = 0;

  constructor(report: Position, ageMs: number, now: number) {
    this.id = report.id;
    this.report = report;
    this.take(report, ageMs, now);
  }

  /** Takes a new report that was true `ageMs` before `now`; `pace` is simulated seconds per second. */
  update(report: Position, ageMs: number, now: number, pace: number): void {
    const shown = this.at(now, pace);
    this.take(report, ageMs, now);
    const truth = this.reckon(now, pace);
    const off = { x: shown.x - truth.x, y: shown.y - truth.y };
    const jumped = Math.hypot(off.x, off.y) > JUMP;
    this.error = jumped ? { x: 0, y: 0 } : off;
    this.errorMs = now;
    if (jumped) this.trail.clear();
    this.trail.push(this.origin);
  }

  /** Where the mark belongs at `now`, in world units. */
  at(now: number, pace: number): Point {
    const point = this.reckon(now, pace);
    const fade = Math.exp(-(now - this.errorMs) / FADE_MS);
    if (fade > 0.001) {
      point.x += this.error.x * fade;
      point.y += this.error.y * fade;
    }
    return point;
  }

  isStale(now: number): boolean {
    return now - this.reportedMs > STALE_MS;
  }

  /** Speed on the page in world units per second, before the pace. */
  get worldSpeed(): number {
    return Math.hypot(this.speed.x, this.speed.y);
  }

  private take(report: Position, ageMs: number, now: number): void {
    this.report = report;
    this.origin = project(report.lat, report.lon);
    this.speed = velocity(report);
    this.angle = screenAngle(report.heading, report.lon);
    this.reportedMs = now - ageMs;
    this.emergency = emergencyOf(report.squawk);
    this.reports += 1;
    if (this.reports === 1) this.trail.push(this.origin);
  }

  private reckon(now: number, pace: number): Point {
    const seconds = (Math.min(STALE_MS, Math.max(0, now - this.reportedMs)) / 1000) * pace;
    return { x: this.origin.x + this.speed.x * seconds, y: this.origin.y + this.speed.y * seconds };
  }
}
