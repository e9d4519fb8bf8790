// Values of an answer as text, and their order.

export type ColumnKind = "number" | "time" | "text";

const NUMBER = /^(U?(TINY|SMALL|BIG|HUGE)?INT|U?INTEGER|FLOAT|DOUBLE|REAL|DECIMAL)\b(?!.*\[)/;
const TIME = /^(DATE|TIMESTAMP)\b(?!.*\[)/;

/** What a column of this DuckDB type holds. A type that merely contains another, such as `BIGINT[]`, is text. */
export function kindOf(type: string): ColumnKind {
  const upper = type.toUpperCase();
  if (NUMBER.test(upper)) return "number";
  return TIME.test(upper) || upper.startsWith("TIMESTAMP_") ? "time" : "text";
}

/** As it is copied; NULL is the empty text, as in CSV. */
export function cellText(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return value;
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  return JSON.stringify(value);
}

/**
 * As it is shown: decimals with all their digits, so that their points stand below each other, and times without the
 * zeros of microseconds that nobody measured.
 */
export function cellShown(value: unknown, type: string): string {
  if (value === null || value === undefined) return "NULL";
  const scale = /^DECIMAL\(\d+,\s*(\d+)\)$/.exec(type)?.[1];
  if (scale !== undefined && typeof value === "number") return value.toFixed(Number(scale));
  if (typeof value === "string" && type.startsWith("TIMESTAMP")) return value.replace("T", " ").replace(/(\.\d*?)0+(?=Z|$)/, "$1").replace(/\.(?=Z|$)/, "");
  return cellText(value);
}

/** The number in a cell. Those beyond a double come as text and lose their last digits here. */
export function cellNumber(value: unknown): number | null {
  if (typeof value === "number") return value;
  if (typeof value !== "string" || value.trim() === "") return null;
  const parsed = Number(value);
  return Number.isFinite(parsed) ? parsed : null;
}

/** Milliseconds since the epoch. */
export function cellTime(value: unknown): number | null {
  if (typeof value !== "string") return null;
  // Without a zone it is UTC, as everything in a query.
  const ms = Date.parse(/(Z|[+-]\d\d(:?\d\d)?)$/.test(value) || !value.includes(":") ? value : `${value.replace(" ", "T")}Z`);
  return Number.isNaN(ms) ? null : ms;
}

export interface Order {
  column: number;
  descending: boolean;
}

/** Indexes of the rows in this order; equal ones stay as they were, NULL is last either way. */
export function sorted(rows: readonly (readonly unknown[])[], order: Order | null, kind: ColumnKind): number[] {
  const indexes = rows.map((_, index) => index);
  if (!order) return indexes;
  const sign = order.descending ? -1 : 1;
  const read = kind === "number" ? cellNumber : (value: unknown) => (value === null ? null : cellText(value));
  const keys = rows.map((row) => read(row[order.column] ?? null));
  return indexes.sort((a, b) => {
    const [x, y] = [keys[a] ?? null, keys[b] ?? null];
    if (x === null || y === null) return x === y ? a - b : x === null ? 1 : -1;
    return x === y ? a - b : (x < y ? -1 : 1) * sign;
  });
}
