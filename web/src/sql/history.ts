// Statements that were run, newest first, in the browser's storage. At most 50, the long ones not at all.
import { array, number, object, parse, text } from "../net/json.ts";

export interface Past {
  sql: string;
  /** When it was last run. */
  at: number;
}

const KEY = "tidemill.queries";
const MOST = 50;
const LONGEST = 10_000;

/** What is used of `localStorage`. */
export type Store = Pick<Storage, "getItem" | "setItem">;

export class History {
  entries: Past[];

  constructor(private readonly store: Store | null) {
    this.entries = load(store);
  }

  /** A statement that was run before moves to the front. */
  add(sql: string, at: number): void {
    if (sql.length > LONGEST || sql.trim() === "") return;
    this.entries = [{ sql, at }, ...this.entries.filter((past) => past.sql !== sql)].slice(0, MOST);
    this.save();
  }

  clear(): void {
    this.entries = [];
    this.save();
  }

  private save(): void {
    try {
      this.store?.setItem(KEY, JSON.stringify(this.entries));
    } catch {
      // Storage is full or off: the history ends with the page.
    }
  }
}

function load(store: Store | null): Past[] {
  try {
    const entries = array(parse(store?.getItem(KEY) ?? "[]")).map(object);
    return entries.map((past) => ({ sql: text(past.sql), at: number(past.at) })).filter((past) => past.sql !== "").slice(0, MOST);
  } catch {
    return [];
  }
}
