// All aircraft the page knows, fed by the table stream.
//
// One entry per aircraft, so however fast reports come the memory is that of the fleet, and at most
// `FLEET_MAX` aircraft; those beyond are counted, not kept.
import { Aircraft } from "./aircraft.ts";
import { DelayClock } from "./clock.ts";
import { Pace } from "./pace.ts";
import { ALL_KINDS, type Change, type Kind, type Position, type Snapshot } from "./position.ts";

export const FLEET_MAX = 20_000;

export class Fleet {
  readonly aircraft = new Map<string, Aircraft>();
  /** Reports taken since the page was opened. */
  reports = 0;
  /** Aircraft left out because the fleet is full. */
  left = new Set<string>();
  /** When the last report arrived, on the page's clock; 0 before the first. */
  lastReportMs = 0;
  private readonly clock = new DelayClock();
  private readonly paceOf = new Pace();
  private snapshotIds: Set<string> | null = null;

  get pace(): number {
    return this.paceOf.value;
  }

  /** Takes a part of a snapshot; with the last part, aircraft that the snapshot did not name are gone. */
  applySnapshot(snapshot: Snapshot, now: number): void {
    this.snapshotIds ??= new Set();
    for (const row of snapshot.rows) {
      if (this.snapshotIds.size < FLEET_MAX) this.snapshotIds.add(row.id);
      this.take(row, now);
    }
    if (!snapshot.last) return;
    for (const id of this.aircraft.keys()) {
      if (!this.snapshotIds.has(id)) this.aircraft.delete(id);
    }
    this.snapshotIds = null;
  }

  applyChange(change: Change, now: number): void {
    for (const row of change.upserts) this.take(row, now);
    for (const id of change.deletes) this.aircraft.delete(id);
  }

  /** Forgets a snapshot that was cut off, so that the next one starts clean. */
  connectionLost(): void {
    this.snapshotIds = null;
  }

  counts(): Record<Kind, number> {
    const counts = Object.fromEntries(ALL_KINDS.map((kind) => [kind, 0])) as Record<Kind, number>;
    for (const aircraft of this.aircraft.values()) counts[aircraft.report.kind] += 1;
    return counts;
  }

  private take(row: Position, now: number): void {
    const known = this.aircraft.get(row.id);
    if (!known && this.aircraft.size >= FLEET_MAX) {
      if (this.left.size < FLEET_MAX) this.left.add(row.id);
      return;
    }
    const age = row.reportedAt === null ? 0 : this.clock.age(row.reportedAt, now);
    if (!known) {
      this.aircraft.set(row.id, new Aircraft(row, age, now));
    } else {
      // The table never goes back, but a snapshot may repeat what a change already said.
      const before = known.report.reportedAt;
      if (before !== null && row.reportedAt !== null && row.reportedAt <= before) return;
      this.paceOf.observe(known.report, row);
      known.update(row, age, now, this.pace);
    }
    this.reports += 1;
    this.lastReportMs = now;
  }
}
