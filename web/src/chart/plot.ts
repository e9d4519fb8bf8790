// From the rows of an answer to what a chart draws: bars when the rows are named by words, lines over time or over a
// number. Columns of numbers get a panel each, because their sizes seldom fit one scale.
import type { Answer } from "../net/query.ts";
import { cellNumber, cellText, cellTime, kindOf, type ColumnKind } from "../sql/cell.ts";

export interface Line {
  /** Empty when there is only one. */
  name: string;
  /** In the order of x. */
  points: { x: number; y: number }[];
}

export interface Lines {
  shape: "lines";
  x: { name: string; isTime: boolean; low: number; high: number };
  panels: { name: string; lines: Line[] }[];
  note: string;
}

export interface Bars {
  shape: "bars";
  labels: string[];
  panels: { name: string; values: (number | null)[] }[];
  note: string;
}

/** Why there is nothing to draw. */
export interface Nothing {
  shape: "nothing";
  note: string;
}

export type Plot = Lines | Bars | Nothing;

const MOST_PANELS = 4;
const MOST_BARS = 40;
export const MOST_LINES = 6;
const MOST_POINTS = 2_000;

export function plot({ columns, rows }: Answer): Plot {
  if (rows.length === 0) return { shape: "nothing", note: "No rows, so nothing to draw." };
  const kinds = columns.map((column) => kindOf(column.type));
  const numbers = indexesOf(kinds, "number");
  const time = kinds.indexOf("time");
  const word = kinds.indexOf("text");
  if (time >= 0 && numbers.length > 0) return lines(columns, rows, time, numbers, word);
  if (word >= 0 && numbers.length > 0) return bars(columns, rows, word, numbers);
  const [first, ...others] = numbers;
  if (first === undefined) return { shape: "nothing", note: "A chart needs a column of numbers, and one of times or words to set them against." };
  if (others.length === 0) return bars(columns, rows, null, numbers);
  return rows.length > MOST_BARS ? lines(columns, rows, first, others, -1) : bars(columns, rows, first, others);
}

function indexesOf(kinds: readonly ColumnKind[], kind: ColumnKind): number[] {
  return kinds.flatMap((one, index) => (one === kind ? [index] : []));
}

function bars(columns: Answer["columns"], rows: Answer["rows"], label: number | null, numbers: number[]): Bars {
  const shown = rows.slice(0, MOST_BARS);
  return {
    shape: "bars",
    labels: shown.map((row, index) => (label === null ? String(index + 1) : row[label] === null ? "NULL" : cellText(row[label]))),
    panels: numbers.slice(0, MOST_PANELS).map((column) => ({
      name: columns[column]?.name ?? "",
      values: shown.map((row) => cellNumber(row[column])),
    })),
    note: notes(rows.length > shown.length && `the first ${MOST_BARS} of ${rows.length} rows`, leftOut(numbers)),
  };
}

function lines(columns: Answer["columns"], rows: Answer["rows"], x: number, numbers: number[], word: number): Lines {
  const isTime = kindOf(columns[x]?.type ?? "") === "time";
  const read = isTime ? cellTime : cellNumber;
  const placed = rows.flatMap((row) => {
    const at = read(row[x]);
    return at === null ? [] : [{ at, row }];
  });
  placed.sort((a, b) => a.at - b.at);
  const names = word < 0 ? [""] : [...new Set(placed.map(({ row }) => cellText(row[word])))].sort();
  const kept = names.slice(0, MOST_LINES);
  const step = Math.max(1, Math.ceil(placed.length / Math.max(1, kept.length) / MOST_POINTS));
  const lineOf = (name: string, column: number): Line => {
    const own = word < 0 ? placed : placed.filter(({ row }) => cellText(row[word]) === name);
    const thinned = own.filter((_, index) => index % step === 0);
    const points = thinned.flatMap(({ at, row }) => {
      const y = cellNumber(row[column]);
      return y === null ? [] : [{ x: at, y }];
    });
    return { name, points };
  };
  return {
    shape: "lines",
    x: { name: columns[x]?.name ?? "", isTime, low: placed[0]?.at ?? 0, high: placed.at(-1)?.at ?? 0 },
    panels: numbers.slice(0, MOST_PANELS).map((column) => ({
      name: columns[column]?.name ?? "",
      lines: kept.map((name) => lineOf(name, column)),
    })),
    note: notes(names.length > kept.length && `the first ${MOST_LINES} of ${names.length} lines`, leftOut(numbers), step > 1 && `every ${step}th point`),
  };
}

function leftOut(numbers: number[]): string | false {
  return numbers.length > MOST_PANELS && `${MOST_PANELS} of ${numbers.length} columns of numbers`;
}

function notes(...parts: (string | false)[]): string {
  const said = parts.filter((part) => part !== false);
  return said.length === 0 ? "" : `Shown: ${said.join(", ")}.`;
}
