// Where the bars of segments stand on their time line: in Postgres above it, in the bucket below, one scale for both.
import type { Segment } from "../net/segments.ts";

export interface Frame {
  left: number;
  right: number;
  /** Height above the line. Below it there is as much room as the scale asks for. */
  height: number;
}

export interface Bar {
  segment: Segment;
  x: number;
  width: number;
  /** Pixels above and below the line; 0 where nothing is. */
  up: number;
  down: number;
}

export interface Timeline {
  low: number;
  high: number;
  /** Bytes at the full height. */
  top: number;
  /** Pixels that the bars below the line take. */
  depth: number;
  bars: Bar[];
}

/** What is there can be seen, however small it is beside the rest. */
const LEAST = 2;
const GAP = 1;

export function timeline(segments: readonly Segment[], now: number, frame: Frame): Timeline {
  const low = segments[0]?.lower ?? now;
  const last = segments.at(-1);
  // An open segment reaches into the future; the line ends where the newest one does.
  const high = Math.max(low + 1, last?.upper ?? now);
  const top = Math.max(1, ...segments.map((segment) => Math.max(segment.hotBytes, segment.cold?.bytes ?? 0)));
  const place = (time: number): number => frame.left + ((time - low) / (high - low)) * (frame.right - frame.left);
  const tall = (bytes: number): number => (bytes <= 0 ? 0 : Math.max(LEAST, (bytes / top) * frame.height));
  const bars = segments.map((segment) => {
    const x = place(segment.lower);
    const width = place(segment.upper) - x;
    return { segment, x, width: Math.max(1, width - (width > 4 ? GAP : 0)), up: tall(segment.hotBytes), down: tall(segment.cold?.bytes ?? 0) };
  });
  return { low, high, top, depth: Math.max(0, ...bars.map((bar) => bar.down)), bars };
}

/** The bar at a place, or the nearest one. */
export function barAt(bars: readonly Bar[], x: number): Bar | null {
  let best: Bar | null = null;
  let distance = Infinity;
  for (const bar of bars) {
    const away = x < bar.x ? bar.x - x : Math.max(0, x - bar.x - bar.width);
    if (away < distance) [best, distance] = [bar, away];
  }
  return best;
}
