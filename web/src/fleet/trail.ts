// Where an aircraft has been, in bounded memory.
//
// When the ring is full every second point is dropped and the spacing doubles, so that the trail always
// reaches back to the first report and only its grain gets coarser.
import type { Point } from "../map/projection.ts";

export const TRAIL_POINTS = 160;
/** World units; about 150 m. */
const FIRST_SPACING = 0.000_024;

export class Trail {
  private readonly xs = new Float32Array(TRAIL_POINTS);
  private readonly ys = new Float32Array(TRAIL_POINTS);
  private spacing = FIRST_SPACING;
  length = 0;

  push({ x, y }: Point): void {
    const last = this.length - 1;
    if (last >= 0 && Math.hypot(x - this.x(last), y - this.y(last)) < this.spacing) return;
    if (this.length === TRAIL_POINTS) this.thin();
    this.xs[this.length] = x;
    this.ys[this.length] = y;
    this.length += 1;
  }

  x(index: number): number {
    return this.xs[index] ?? 0;
  }

  y(index: number): number {
    return this.ys[index] ?? 0;
  }

  clear(): void {
    this.length = 0;
    this.spacing = FIRST_SPACING;
  }

  private thin(): void {
    for (let i = 0; 2 * i < this.length; i++) {
      this.xs[i] = this.x(2 * i);
      this.ys[i] = this.y(2 * i);
    }
    this.length = Math.ceil(this.length / 2);
    this.spacing *= 2;
  }
}
