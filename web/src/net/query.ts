// `POST /v1/query`: one SELECT, answered as rows to show or as a file to keep. Aborting the signal closes the
// connection, and with it the host ends the query.
import { ApiFailure, errorOf } from "./api.ts";
import { array, number, object, text } from "./json.ts";

/** The query of the project's article; a console that has nothing else to show starts with it. */
export const PUBLISHED = "SELECT kind, count(*) AS msgs, count(DISTINCT id) AS entities FROM read_parquet('archive/**/*.parquet') GROUP BY kind;";

export type FileFormat = "csv" | "parquet";

export interface Column {
  name: string;
  /** In DuckDB's words. */
  type: string;
}

/** What a query cost. */
export interface Cost {
  rows: number;
  truncated: boolean;
  elapsedMs: number;
  rowsRead: number;
  bytesRead: number;
  filesRead: number;
}

export interface Answer {
  columns: Column[];
  /** As many values as columns in each row. */
  rows: unknown[][];
  cost: Cost;
}

export async function ask(sql: string, signal: AbortSignal): Promise<Answer> {
  return parseAnswer(await (await post({ sql }, signal)).json());
}

export async function askFile(sql: string, format: FileFormat, signal: AbortSignal): Promise<{ file: Blob; cost: Cost }> {
  const response = await post({ sql, format }, signal);
  return { file: await response.blob(), cost: costOf((name) => response.headers.get(name)) };
}

/** Without a time limit of its own: the host has one, and a wait for other queries comes before it. */
async function post(question: object, signal: AbortSignal): Promise<Response> {
  const response = await fetch("/v1/query", {
    method: "POST",
    headers: { "content-type": "application/json", accept: "*/*" },
    body: JSON.stringify(question),
    cache: "no-store",
    signal,
  });
  if (!response.ok) throw new ApiFailure(await errorOf(response));
  return response;
}

export function parseAnswer(value: unknown): Answer {
  const o = object(value);
  const columns = array(o.columns).map(object).map((column) => ({ name: text(column.name), type: text(column.type) }));
  const rows = array(o.rows).map((row) => {
    const values = array(row);
    return columns.map((_, index) => values[index] ?? null);
  });
  return {
    columns,
    rows,
    cost: {
      rows: number(o.row_count, rows.length),
      truncated: o.truncated === true,
      elapsedMs: number(o.elapsed_ms),
      rowsRead: number(o.rows_read),
      bytesRead: number(o.bytes_read),
      filesRead: number(o.files_read),
    },
  };
}

export function costOf(header: (name: string) => string | null): Cost {
  return {
    rows: number(header("tidemill-row-count")),
    truncated: header("tidemill-truncated") === "true",
    elapsedMs: number(header("tidemill-elapsed-ms")),
    rowsRead: number(header("tidemill-rows-read")),
    bytesRead: number(header("tidemill-bytes-read")),
    filesRead: number(header("tidemill-files-read")),
  };
}
