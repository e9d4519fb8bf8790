// What queries can name: topics and their columns.
import type { Answer, Column } from "../net/query.ts";

export interface Table {
  name: string;
  columns: Column[];
}

/** One statement for all topics. It names none of them, so no records are collected for it. */
export const SCHEMA_SQL = "SELECT table_name, column_name, data_type FROM information_schema.columns ORDER BY table_name, ordinal_position";

/** Tables in the order of the answer to `SCHEMA_SQL`. */
export function tablesOf(answer: Answer): Table[] {
  const tables = new Map<string, Table>();
  for (const [table, name, type] of answer.rows) {
    if (typeof table !== "string" || typeof name !== "string" || typeof type !== "string") continue;
    const known = tables.get(table) ?? { name: table, columns: [] };
    known.columns.push({ name, type });
    tables.set(table, known);
  }
  return [...tables.values()];
}

/** `TIMESTAMP WITH TIME ZONE` takes a line for itself. */
export function shortType(type: string): string {
  return type.replace("TIMESTAMP WITH TIME ZONE", "TIMESTAMPTZ");
}
