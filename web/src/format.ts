// Numbers, sizes and times as people read them. The locale is fixed, like the language of the page.

const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const ONE = new Intl.NumberFormat("en-US", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const SHORT = new Intl.NumberFormat("en-US", { notation: "compact", maximumSignificantDigits: 4 });

export const NONE = "–";

export function whole(value: number | null): string {
  return value === null ? NONE : WHOLE.format(value);
}

/** 1,234 up to a hundred thousand, then 1.235M. */
export function short(value: number | null): string {
  if (value === null) return NONE;
  return Math.abs(value) < 100_000 ? WHOLE.format(value) : SHORT.format(value);
}

/** A rate: one decimal while it is small. */
export function rate(value: number | null): string {
  if (value === null) return NONE;
  return value !== 0 && Math.abs(value) < 10 ? ONE.format(value) : short(value);
}

export function oneDecimal(value: number | null): string {
  return value === null ? NONE : ONE.format(value);
}

export function bytes(value: number | null): string {
  if (value === null) return NONE;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let scaled = value;
  let unit = 0;
  while (scaled >= 1024 && unit < units.length - 1) {
    scaled /= 1024;
    unit += 1;
  }
  return `${unit === 0 || scaled >= 100 ? WHOLE.format(scaled) : ONE.format(scaled)} ${units[unit] ?? ""}`;
}

/** A span of seconds in its two largest units: `2 h 05 min`. */
export function span(seconds: number): string {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${pad(s % 60)} s`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ${pad(Math.floor((s % 3600) / 60))} min`;
  return `${Math.floor(s / 86_400)} d ${Math.floor((s % 86_400) / 3600)} h`;
}

/** A short time in seconds with the digits that matter. */
export function seconds(value: number): string {
  if (value < 0.005) return "0 s";
  if (value < 10) return `${value.toFixed(value < 1 ? 2 : 1)} s`;
  return span(value);
}

/** How long ago, coarse enough to be read at a glance. */
export function ago(ms: number): string {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 2) return "now";
  if (s < 60) return `${s} s ago`;
  if (s < 3600) return `${Math.floor(s / 60)} min ago`;
  if (s < 86_400) return `${Math.floor(s / 3600)} h ago`;
  return `${Math.floor(s / 86_400)} d ago`;
}

export function clock(ms: number): string {
  const d = new Date(ms);
  return `${pad(d.getHours())}:${pad(d.getMinutes())}:${pad(d.getSeconds())}`;
}

/** A moment as it is said on the day itself, or with its date. */
export function moment(ms: number, now: number): string {
  const d = new Date(ms);
  const date = `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
  return d.toDateString() === new Date(now).toDateString() ? clock(ms) : `${date} ${clock(ms)}`;
}

/** A digest as it is quoted in conversation. */
export function shortDigest(digest: string): string {
  return digest.replace(/^sha256:/, "").slice(0, 12);
}

export function coordinates(lat: number, lon: number): string {
  const part = (value: number, plus: string, minus: string): string =>
    `${Math.abs(value).toFixed(3)}° ${value < 0 ? minus : plus}`;
  return `${part(lat, "N", "S")}  ${part(lon, "E", "W")}`;
}

const COMPASS = ["N", "NE", "E", "SE", "S", "SW", "W", "NW"] as const;

export function compass(heading: number): string {
  const index = Math.round((((heading % 360) + 360) % 360) / 45) % 8;
  return COMPASS[index] ?? "N";
}

function pad(value: number): string {
  return String(value).padStart(2, "0");
}
