// How old a report is, although the host's clock and ours need not agree.
//
// The report that travelled fastest lately is taken as fresh; every other one is as old as it was slower.
// The minimum is kept over two half windows, so that a clock that jumps, or a replay of old records, is
// forgotten within `WINDOW_MS`.

const WINDOW_MS = 20_000;

export class DelayClock {
  private previous = Infinity;
  private current = Infinity;
  private windowEnds = -Infinity;

  /** Notes a report stamped `reportedAt` that arrived at `now` and returns its age in milliseconds. */
  age(reportedAt: number, now: number): number {
    const delay = now - reportedAt;
    if (now > this.windowEnds) {
      this.previous = now > this.windowEnds + WINDOW_MS ? Infinity : this.current;
      this.current = Infinity;
      this.windowEnds = now + WINDOW_MS / 2;
    }
    this.current = Math.min(this.current, delay);
    return delay - Math.min(this.previous, this.current);
  }
}
