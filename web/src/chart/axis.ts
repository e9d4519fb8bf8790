// Where the ticks of an axis stand and what they say.

export interface Tick {
  at: number;
  label: string;
}

/** Round numbers that cover the range, about `count` of them. */
export function numberTicks(low: number, high: number, count: number): Tick[] {
  const span = high - low;
  if (!(span > 0) || !Number.isFinite(span)) return [{ at: low, label: plain(low) }];
  const rough = span / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = ([1, 2, 5].find((factor) => factor * power >= rough) ?? 10) * power;
  const ticks: Tick[] = [];
  for (let n = Math.ceil(low / step); n * step <= high + step * 1e-9; n += 1) {
    const at = Number((n * step).toPrecision(12));
    ticks.push({ at, label: plain(at) });
  }
  return ticks;
}

const COMPACT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 4 });
const SMALL = new Intl.NumberFormat("en-US", { maximumSignificantDigits: 6 });

export function plain(value: number): string {
  return Math.abs(value) >= 10_000 ? COMPACT.format(value) : SMALL.format(value);
}

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;
const STEPS = [
  SECOND, 2 * SECOND, 5 * SECOND, 10 * SECOND, 15 * SECOND, 30 * SECOND,
  MINUTE, 2 * MINUTE, 5 * MINUTE, 10 * MINUTE, 15 * MINUTE, 30 * MINUTE,
  HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR, 12 * HOUR, DAY, 2 * DAY, 7 * DAY, 30 * DAY, 90 * DAY, 365 * DAY,
] as const;

/** Round times between two, at most `count`. `offset` is what local time is ahead of UTC, in milliseconds. */
export function timeTicks(low: number, high: number, count: number, offset = 0): Tick[] {
  if (!(high > low)) return [{ at: low, label: timeLabel(low + offset, SECOND) }];
  const rough = (high - low) / Math.max(1, count);
  const step = STEPS.find((one) => one >= rough) ?? Math.ceil(rough / (365 * DAY)) * 365 * DAY;
  const ticks: Tick[] = [];
  for (let at = Math.ceil((low + offset) / step) * step - offset; at <= high; at += step) {
    ticks.push({ at, label: timeLabel(at + offset, step) });
  }
  return ticks;
}

function timeLabel(at: number, step: number): string {
  const iso = new Date(at).toISOString();
  if (step >= DAY) return iso.slice(0, 10);
  const midnight = at % DAY === 0;
  return midnight ? iso.slice(5, 10) : step >= MINUTE ? iso.slice(11, 16) : iso.slice(11, 19);
}
