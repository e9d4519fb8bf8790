import { describe, expect, it } from "vitest";
import { parseErrorBody } from "../src/net/api.ts";
import { costOf, parseAnswer, PUBLISHED } from "../src/net/query.ts";
import { took } from "../src/panels/queryOutcome.ts";
import { href, parseRoute } from "../src/router.ts";
import { cellNumber, cellShown, cellText, cellTime, kindOf, sorted } from "../src/sql/cell.ts";
import { examples } from "../src/sql/examples.ts";
import { History } from "../src/sql/history.ts";
import { shortType, tablesOf, type Table } from "../src/sql/schema.ts";
import { indexOfByte, quoted, tokenAt } from "../src/sql/text.ts";

describe("an answer", () => {
  it("stands any shape", () => {
    for (const value of [null, 7, [], {}, { columns: "no", rows: [7, null] }]) {
      expect(parseAnswer(value).rows.every((row) => row.length === 0)).toBe(true);
    }
  });

  it("has as many values in a row as there are columns", () => {
    const answer = parseAnswer({ columns: [{ name: "a", type: "BIGINT" }, { name: "b", type: "VARCHAR" }], rows: [[1], [1, "x", 2]], truncated: true, elapsed_ms: 4.5, rows_read: 9, bytes_read: 8, files_read: 7 });
    expect(answer.rows).toEqual([[1, null], [1, "x"]]);
    expect(answer.cost).toEqual({ rows: 2, truncated: true, elapsedMs: 4.5, rowsRead: 9, bytesRead: 8, filesRead: 7 });
  });

  it("tells the cost of a file in headers", () => {
    const headers = new Map([["tidemill-row-count", "12"], ["tidemill-truncated", "true"], ["tidemill-elapsed-ms", "3.5"]]);
    expect(costOf((name) => headers.get(name) ?? null)).toMatchObject({ rows: 12, truncated: true, elapsedMs: 3.5, rowsRead: 0 });
  });

  it("that is an error may have a position", () => {
    const fallback = { status: 400, code: "http_error", message: "", hint: "" };
    expect(parseErrorBody({ error: { code: "query_failed", message: "no", position: 4 } }, fallback).position).toBe(4);
    expect(parseErrorBody({ error: { code: "query_failed", message: "no", position: "4" } }, fallback)).not.toHaveProperty("position");
  });

  it("took some time", () => {
    expect([took(0.4), took(41.3), took(412.6), took(2_345)]).toEqual(["0.4 ms", "41.3 ms", "413 ms", "2.35 s"]);
  });
});

describe("cells", () => {
  it("are numbers, times or texts by their type", () => {
    const kinds = ["BIGINT", "DECIMAL(18,5)", "UHUGEINT", "DOUBLE", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_NS", "DATE", "TIME", "VARCHAR", "BIGINT[]", "STRUCT(a BIGINT)", "INTERVAL"].map(kindOf);
    expect(kinds).toEqual(["number", "number", "number", "number", "time", "time", "time", "text", "text", "text", "text", "text"]);
  });

  it("are copied as they came", () => {
    expect([null, "x", 1.5, true, [1, null], { a: 1 }].map(cellText)).toEqual(["", "x", "1.5", "true", "[1,null]", '{"a":1}']);
  });

  it("show decimals with all digits and times without idle zeros", () => {
    expect(cellShown(-75.4, "DECIMAL(18,5)")).toBe("-75.40000");
    expect(cellShown("123456789012345678.5", "DECIMAL(19,1)")).toBe("123456789012345678.5");
    expect(cellShown("2026-01-02T03:04:05.000000Z", "TIMESTAMP WITH TIME ZONE")).toBe("2026-01-02 03:04:05Z");
    expect(cellShown("2026-01-02T03:04:05.120000Z", "TIMESTAMP WITH TIME ZONE")).toBe("2026-01-02 03:04:05.12Z");
    expect(cellShown("1.500", "VARCHAR")).toBe("1.500");
    expect(cellShown(null, "VARCHAR")).toBe("NULL");
  });

  it("are read as numbers and times where they are", () => {
    expect([1, "1e20", "", "x", null, "inf"].map(cellNumber)).toEqual([1, 1e20, null, null, null, null]);
    const noon = Date.UTC(2026, 0, 2, 12);
    expect(["2026-01-02T12:00:00Z", "2026-01-02T12:00:00.000000Z", "2026-01-02 12:00:00", "2026-01-02T13:00:00+01:00"].map(cellTime)).toEqual([noon, noon, noon, noon]);
    expect([cellTime("2026-01-02"), cellTime("soon"), cellTime(5)]).toEqual([Date.UTC(2026, 0, 2), null, null]);
  });

  it("are sorted as what they are, NULL last", () => {
    const rows = [["10"], [null], ["9"], ["10"]];
    expect(sorted(rows, null, "text")).toEqual([0, 1, 2, 3]);
    expect(sorted(rows, { column: 0, descending: false }, "number")).toEqual([2, 0, 3, 1]);
    expect(sorted(rows, { column: 0, descending: true }, "number")).toEqual([0, 3, 2, 1]);
    expect(sorted(rows, { column: 0, descending: false }, "text")).toEqual([0, 3, 2, 1]);
  });
});

describe("the text of a statement", () => {
  it("is counted in bytes by the host and in UTF-16 here", () => {
    const sql = "é€😀x";
    expect([0, 2, 5, 9, 10, 99].map((byte) => indexOfByte(sql, byte))).toEqual([0, 1, 2, 4, 5, 5]);
  });

  it("has a word or a sign at each place", () => {
    const sql = "SELECT coun(*) ";
    const at = (index: number): string => sql.slice(...tokenAt(sql, index));
    expect([at(0), at(7), at(11), at(12), at(14), at(99)]).toEqual(["SELECT", "coun", "(", "*", ")", ")"]);
    expect(tokenAt("", 3)).toEqual([0, 0]);
    expect(tokenAt("a 😀", 2)).toEqual([2, 4]);
  });

  it("quotes names that are not plain", () => {
    expect(["id", "_ts", "order", "Kind", "my-topic", 'a"b', "été"].map(quoted)).toEqual(["id", "_ts", '"order"', '"Kind"', '"my-topic"', '"a""b"', '"été"']);
  });

  it("travels in a link", () => {
    for (const sql of ["SELECT 1", "a & b = '?#/%'\n-- ü", ""]) {
      expect(parseRoute(href({ page: "query", sql }))).toEqual({ page: "query", sql });
    }
    expect(parseRoute("#/query")).toEqual({ page: "query", sql: null });
    expect(parseRoute("#/query?sql=%E0%A4%A")).toEqual({ page: "query", sql: "%E0%A4%A" });
    expect(href({ page: "query", sql: null })).toBe("#/query");
    expect(parseRoute("#/storage")).toEqual({ page: "storage" });
  });
});

describe("what can be asked", () => {
  const table = (name: string, ...columns: string[]): Table => ({ name, columns: columns.map((column) => ({ name: column, type: "VARCHAR" })) });

  it("is known from one answer", () => {
    const answer = parseAnswer({ columns: [{ name: "t" }, { name: "c" }, { name: "d" }], rows: [["a", "x", "BIGINT"], ["a", "y", "VARCHAR"], ["b", "_ts", "TIMESTAMP WITH TIME ZONE"], ["b", null, "BLOB"]] });
    expect(tablesOf(answer)).toEqual([
      { name: "a", columns: [{ name: "x", type: "BIGINT" }, { name: "y", type: "VARCHAR" }] },
      { name: "b", columns: [{ name: "_ts", type: "TIMESTAMP WITH TIME ZONE" }] },
    ]);
    expect(shortType("TIMESTAMP WITH TIME ZONE")).toBe("TIMESTAMPTZ");
  });

  it("begins with the published query, whatever there is", () => {
    expect(examples([]).map((example) => example.sql)).toEqual([PUBLISHED]);
    expect(PUBLISHED).toBe("SELECT kind, count(*) AS msgs, count(DISTINCT id) AS entities FROM read_parquet('archive/**/*.parquet') GROUP BY kind;");
  });

  it("names only topics and columns that exist", () => {
    const titles = (tables: Table[]): string[] => examples(tables).map((example) => example.title);
    expect(titles([table("notes", "_ts")])).toHaveLength(2);
    const sample = [table("alerts", "id", "alert", "lat", "lon"), table("positions", "id", "kind", "lat", "lon")];
    expect(titles(sample)).toContain("alerts, and where they are now");
    expect(titles(sample)).toContain("positions per minute");
    expect(examples([table("my-things", "id", "lat", "lon")]).slice(1).every((example) => example.sql.includes('"my-things"'))).toBe(true);
    expect(examples(Array.from({ length: 50 }, (_, index) => table(`t${index}`, "_ts"))).length).toBeLessThan(12);
  });
});

describe("the history", () => {
  const memory = (text: string | null = null): { getItem: () => string | null; setItem: (key: string, value: string) => void; text: string | null } => {
    const store = { text, getItem: () => store.text, setItem: (_: string, value: string) => { store.text = value; } };
    return store;
  };

  it("keeps the newest first, each once, and not too many", () => {
    const store = memory();
    const history = new History(store);
    for (let n = 0; n < 60; n += 1) history.add(`SELECT ${n}`, n);
    history.add("SELECT 58", 100);
    expect(history.entries).toHaveLength(50);
    expect(history.entries.slice(0, 3).map((past) => past.sql)).toEqual(["SELECT 58", "SELECT 59", "SELECT 57"]);
    history.add(" ", 101);
    history.add("x".repeat(20_000), 102);
    expect(history.entries[0]).toEqual({ sql: "SELECT 58", at: 100 });
    expect(new History(store).entries).toEqual(history.entries);
    history.clear();
    expect(new History(store).entries).toEqual([]);
  });

  it("stands what others wrote, and storage that refuses", () => {
    for (const text of ["no", "7", '[7,{"sql":3},{"sql":"SELECT 1"}]']) expect(new History(memory(text)).entries.length).toBeLessThan(2);
    const refusing = new History({ getItem: () => { throw new Error("off"); }, setItem: () => { throw new Error("full"); } });
    refusing.add("SELECT 1", 1);
    expect(refusing.entries).toHaveLength(1);
    expect(new History(null).entries).toEqual([]);
  });
});
