import { describe, expect, it } from "vitest";
import { numberTicks, timeTicks } from "../src/chart/axis.ts";
import { plot, type Bars, type Lines } from "../src/chart/plot.ts";
import { parseAnswer, type Answer } from "../src/net/query.ts";
import { parseSegments } from "../src/net/segments.ts";
import { parseStatus } from "../src/net/status.ts";
import { barAt, timeline } from "../src/storage/timeline.ts";
import { times, weigh } from "../src/storage/weights.ts";

const MINUTE = 60_000;

describe("ticks", () => {
  it("are round and within the range", () => {
    expect(numberTicks(0, 2_500, 4).map((tick) => tick.label)).toEqual(["0", "1,000", "2,000"]);
    expect(numberTicks(0, 0.3, 3).map((tick) => tick.at)).toEqual([0, 0.1, 0.2, 0.3]);
    expect(numberTicks(-5, 5, 4).map((tick) => tick.at)).toEqual([-5, 0, 5]);
    expect(numberTicks(7, 7, 4)).toHaveLength(1);
    expect(numberTicks(NaN, Infinity, 4)).toHaveLength(1);
  });

  it("of time stand at full minutes, hours and days", () => {
    const start = Date.UTC(2026, 0, 1, 23, 50);
    expect(timeTicks(start, start + 20 * MINUTE, 4).map((tick) => tick.label)).toEqual(["23:50", "23:55", "01-02", "00:05", "00:10"]);
    expect(timeTicks(start, start + 20_000, 4).map((tick) => tick.label)).toEqual(["23:50:00", "23:50:05", "23:50:10", "23:50:15", "23:50:20"]);
    // An hour ahead of UTC.
    expect(timeTicks(start, start + 20 * MINUTE, 2, 60 * MINUTE).map((tick) => tick.label)).toEqual(["00:50", "01:00", "01:10"]);
    const years = timeTicks(0, 20 * 365 * 86_400_000, 5);
    expect(years.length).toBeGreaterThan(2);
    expect(years.length).toBeLessThan(8);
    expect(timeTicks(start, start, 5)).toHaveLength(1);
  });
});

describe("a plot", () => {
  const answer = (types: string[], rows: unknown[][]): Answer => parseAnswer({ columns: types.map((type, index) => ({ name: `c${index}`, type })), rows });

  it("of words and numbers is bars, a panel for each column", () => {
    const bars = plot(answer(["VARCHAR", "BIGINT", "DECIMAL(18,1)"], [["a", 1, 2.5], [null, null, "3.5"]])) as Bars;
    expect(bars).toMatchObject({ shape: "bars", labels: ["a", "NULL"], note: "" });
    expect(bars.panels.map((panel) => panel.values)).toEqual([[1, null], [2.5, 3.5]]);
  });

  it("over time is lines in the order of time, one for each word", () => {
    const rows = [["2026-01-01T00:01:00Z", "b", 4], ["2026-01-01T00:00:00Z", "a", 1], ["2026-01-01T00:00:00Z", "b", 3], [null, "a", 9], ["2026-01-01T00:01:00Z", "a", null]];
    const lines = plot(answer(["TIMESTAMP WITH TIME ZONE", "VARCHAR", "BIGINT"], rows)) as Lines;
    const start = Date.UTC(2026, 0, 1);
    expect(lines.x).toEqual({ name: "c0", isTime: true, low: start, high: start + MINUTE });
    expect(lines.panels[0]?.lines).toEqual([
      { name: "a", points: [{ x: start, y: 1 }] },
      { name: "b", points: [{ x: start, y: 3 }, { x: start + MINUTE, y: 4 }] },
    ]);
  });

  it("says what it leaves out", () => {
    const many = Array.from({ length: 100 }, (_, index) => [`w${index}`, index]);
    expect(plot(answer(["VARCHAR", "BIGINT"], many)).note).toBe("Shown: the first 40 of 100 rows.");
    const times = Array.from({ length: 30_000 }, (_, index) => [new Date(index * 1000).toISOString(), index]);
    const lines = plot(answer(["TIMESTAMP", "BIGINT"], times)) as Lines;
    expect(lines.panels[0]?.lines[0]?.points.length).toBeLessThanOrEqual(2_000);
    expect(lines.note).toContain("every 15th point");
  });

  it("needs rows and numbers", () => {
    expect(plot(answer(["BIGINT"], [])).shape).toBe("nothing");
    expect(plot(answer(["VARCHAR"], [["a"]])).shape).toBe("nothing");
    expect(plot(answer(["BIGINT"], [[1]]))).toMatchObject({ shape: "bars", labels: ["1"] });
    expect(plot(answer(["BIGINT", "DOUBLE"], Array.from({ length: 50 }, (_, index) => [index, index]))).shape).toBe("lines");
  });
});

describe("segments", () => {
  const segment = (minute: number, change: object): object => ({
    lower: new Date(minute * MINUTE).toISOString(), upper: new Date((minute + 1) * MINUTE).toISOString(), state: "archived", records: 10, hot_bytes: 1_000, cold: { objects: 1, records: 10, bytes: 100 }, error: null, ...change,
  });

  it("stand any shape of answer", () => {
    for (const value of [null, 7, {}, { segments: [7, null, { state: "open" }, segment(0, { state: "melted" }), segment(0, { upper: "1970" })] }]) expect(parseSegments(value)).toEqual([]);
  });

  it("are read in the order of time", () => {
    const read = parseSegments({ segments: [segment(1, { state: "open", records: null, cold: null }), segment(0, { error: "the bucket is away" })] });
    expect(read.map(({ lower, state, records, cold, error }) => [lower, state, records, cold, error])).toEqual([
      [0, "archived", 10, { objects: 1, records: 10, bytes: 100 }, "the bucket is away"],
      [MINUTE, "open", null, null, null],
    ]);
  });

  it("are bars on one scale, and what is there can be seen", () => {
    const read = parseSegments({ segments: [segment(0, { hot_bytes: 0, cold: { objects: 1, records: 1, bytes: 1 } }), segment(1, {}), segment(2, { state: "open", cold: null, hot_bytes: 500 })] });
    const { bars, top, depth, low, high } = timeline(read, 0, { left: 10, right: 310, height: 100 });
    expect([low, high, top, depth]).toEqual([0, 3 * MINUTE, 1_000, 10]);
    expect(bars.map(({ x, up, down }) => [x, up, down])).toEqual([[10, 0, 2], [110, 100, 10], [210, 50, 0]]);
    expect(barAt(bars, 115)?.segment.lower).toBe(MINUTE);
    expect(barAt(bars, 999)?.segment.lower).toBe(2 * MINUTE);
    expect(barAt([], 5)).toBeNull();
    expect(timeline([], 0, { left: 0, right: 100, height: 10 }).bars).toEqual([]);
  });

  it("are weighed over topics, archived against what the same records took before", () => {
    const { topics } = parseStatus({ topics: [
      { hot: { records: 10, bytes: 1_000 }, cold: { objects: 2, records: 100, bytes: 300, hot_bytes_per_record: 120 } },
      { hot: { records: 10, bytes: 3_000 }, cold: { objects: 1, records: 100, bytes: 100, hot_bytes_per_record: 40 } },
      { hot: { records: 0, bytes: 0 } },
    ] });
    const { hot, cold, ratio } = weigh(topics);
    expect(hot).toEqual({ records: 20, bytes: 4_000, each: 200 });
    expect(cold).toEqual({ records: 200, bytes: 400, each: 2, objects: 3 });
    expect(ratio).toBe(40);
    expect(weigh([]).ratio).toBeNull();
    expect([times(3.14), times(36.2)]).toEqual(["3.1 × smaller", "36 × smaller"]);
  });
});
