// How fast simulated time runs: 1 for real aircraft, more when a feed is replayed or simulated in a hurry.
//
// Compares how far aircraft got between two reports with what their speed says, and smooths over many of
// them, so that reckoning between reports does not lag behind a fast feed.
import { EARTH_RADIUS_KM } from "../map/projection.ts";
import type { Position } from "./position.ts";

const RAD = Math.PI / 180;
const KNOT_KM_PER_MS = 1.852 / 3_600_000;
const WEIGHT = 0.01;
const WARM_UP = 40;
const PACE_MAX = 120;
/** Slower aircraft say too little, since positions are rounded to a metre. */
const MIN_KNOTS = 60;

export class Pace {
  private mean = 1;
  private seen = 0;

  /** The pace, 1 until it is known and while it is within a tenth of real time. */
  get value(): number {
    return this.seen < WARM_UP || Math.abs(this.mean - 1) < 0.1 ? 1 : this.mean;
  }

  observe(before: Position, after: Position): void {
    if (before.reportedAt === null || after.reportedAt === null) return;
    const ms = after.reportedAt - before.reportedAt;
    if (ms < 100 || ms > 30_000 || before.speed < MIN_KNOTS) return;
    const ratio = distanceKm(before, after) / (before.speed * KNOT_KM_PER_MS * ms);
    if (ratio > PACE_MAX) return;
    this.seen += 1;
    // A plain mean while it warms up, then one that forgets.
    this.mean += (ratio - this.mean) * Math.max(WEIGHT, 1 / this.seen);
  }
}

export function distanceKm(a: { lat: number; lon: number }, b: { lat: number; lon: number }): number {
  const x = (b.lon - a.lon) * RAD * Math.cos(((a.lat + b.lat) / 2) * RAD);
  return Math.hypot(x, (b.lat - a.lat) * RAD) * EARTH_RADIUS_KM;
}
