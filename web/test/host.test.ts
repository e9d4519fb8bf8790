import { describe, expect, it } from "vitest";
import * as format from "../src/format.ts";
import { parseErrorBody } from "../src/net/api.ts";
import { parseRecord } from "../src/net/record.ts";
import { Ring, Sampler } from "../src/net/sample.ts";
import { parseStatus } from "../src/net/status.ts";
import { backoffMs } from "../src/net/stream.ts";
import { reasonOf } from "../src/pages/pipelinesPage.ts";
import { sparkPath } from "../src/panels/sparkline.ts";
import { hotBytesPerMessage, secondsBehind, totalRate } from "../src/panels/streamPanel.ts";
import { href, parseRoute } from "../src/router.ts";

describe("the status", () => {
  it("stands any shape of answer", () => {
    for (const value of [null, 7, [], {}, { topics: [null, {}], pipelines: [{ stages: [7] }], groups: "no" }]) {
      const status = parseStatus(value);
      expect(status.durability.durable).toBe(true);
      expect(totalRate(status)).toBe(0);
    }
  });

  it("says so when durability is off", () => {
    expect(parseStatus({ durability: { durable: false, fsync: false } }).durability).toMatchObject({ durable: false, fsync: false, fullPageWrites: true });
  });

  it("weighs bytes per message over all topics", () => {
    const { topics } = parseStatus({ topics: [{ hot: { records: 3, bytes: 300 } }, { hot: { records: 1, bytes: 500 } }] });
    expect(hotBytesPerMessage(topics)).toBe(200);
    expect(hotBytesPerMessage([])).toBeNull();
  });

  it("gives a stage's reason, else those of its partitions", () => {
    const [pipeline] = parseStatus({
      pipelines: [{ stages: [
        { reason: "own", tasks: [{ partition: 0, reason: "task" }] },
        { tasks: [{ partition: 0, reason: null }, { partition: 2, state: "idle", reason: "another host runs it" }, { partition: 3, reason: "fenced" }] },
      ] }],
    }).pipelines;
    expect(pipeline?.stages.map(reasonOf)).toEqual(["own", "partition 3: fenced"]);
  });

  it("names the hosts, and none for a host that does not know", () => {
    expect(parseStatus({ hosts: [{ host: "h-1", version: "0.1.0", url: null, leases: 3 }, {}] }).hosts).toEqual([
      { host: "h-1", version: "0.1.0", url: null, leases: 3 },
      { host: "", version: "", url: null, leases: 0 },
    ]);
    expect(parseStatus({}).hosts).toEqual([]);
  });

  it("turns lag into time", () => {
    expect(secondsBehind(500, 1000)).toBe(0.5);
    expect(secondsBehind(0, 0)).toBe(0);
    expect(secondsBehind(5, 0)).toBeNull();
  });
});

describe("records", () => {
  const record = (change: object): string => JSON.stringify({ partition: 1, offset: 2, timestamp: "2026-01-01T00:00:00Z", key: null, headers: [], ...change });

  it("show JSON indented, text as it is, bytes as base64", () => {
    expect(parseRecord(record({ value: { a: 1 } }))).toMatchObject({ form: "json", body: "{\n  \"a\": 1\n}" });
    expect(parseRecord(record({ value: null }))).toMatchObject({ form: "json", body: "null" });
    expect(parseRecord(record({ text: "<b>" }))).toMatchObject({ form: "text", body: "<b>" });
    expect(parseRecord(record({ base64: "AA==", key_base64: "/w==", key: undefined }))).toMatchObject({ form: "base64", key: "base64:/w==" });
  });

  it("keep odd headers readable and cut a huge payload", () => {
    const parsed = parseRecord(record({ text: "x".repeat(50_000), headers: [["a", "b"], ["c", { base64: "/w==" }], 7] }));
    expect(parsed?.headers).toEqual([["a", "b"], ["c", "base64:/w=="], ["", "base64:"]]);
    expect(parsed?.body.length).toBeLessThan(9_000);
    expect(parsed?.body).toContain("42000 more characters");
  });

  it("are dropped when they are none", () => {
    for (const data of ["", "{}", "[]", "{\"offset\":\"1\"}"]) expect(parseRecord(data)).toBeNull();
  });
});

describe("sampling", () => {
  it("keeps the newest few and counts them all", () => {
    const sampler = new Sampler<number>(3);
    sampler.push([1, 2, 3, 4]);
    sampler.push([5]);
    expect(sampler.drain()).toEqual({ shown: [3, 4, 5], arrived: 5 });
    expect(sampler.drain()).toEqual({ shown: [], arrived: 0 });
  });

  it("never holds more than its limit", () => {
    const ring = new Ring(4);
    for (let i = 0; i < 100; i++) ring.push(i);
    expect(ring.list()).toEqual([96, 97, 98, 99]);
  });
});

describe("reconnecting", () => {
  it("waits longer each time, within bounds and never in step", () => {
    const waits = [1, 2, 3, 4, 5, 6, 7, 100].map((attempt) => backoffMs(attempt, 0.5));
    expect(waits).toEqual([500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
    expect(backoffMs(3, 0)).toBe(1500);
    expect(backoffMs(3, 1)).toBe(2500);
  });

  it("shows the host's own words when it refuses", () => {
    const fallback = { status: 404, code: "http_error", message: "the host answered 404", hint: "" };
    expect(parseErrorBody({ error: { code: "table_not_found", message: "no", hint: "do" } }, fallback)).toEqual({ status: 404, code: "table_not_found", message: "no", hint: "do" });
    expect(parseErrorBody("<html>", fallback)).toEqual(fallback);
    expect(parseErrorBody({ error: null }, fallback)).toEqual(fallback);
  });
});

describe("routes", () => {
  it("survive a round trip, whatever a topic is called", () => {
    for (const topic of ["positions", "a/b", "100%", "ü \"x\"", "#"]) {
      expect(parseRoute(href({ page: "topics", topic }))).toEqual({ page: "topics", topic });
    }
    expect(parseRoute(href({ page: "topics", topic: null }))).toEqual({ page: "topics", topic: null });
    expect(parseRoute("#/pipelines")).toEqual({ page: "pipelines" });
    for (const hash of ["", "#", "#/", "#/nowhere", "#main"]) expect(parseRoute(hash)).toEqual({ page: "map" });
    expect(parseRoute("#/topics/%zz")).toEqual({ page: "topics", topic: "%zz" });
  });
});

describe("formats", () => {
  it("read as people write", () => {
    expect(format.rate(999.8)).toBe("1,000");
    expect(format.rate(1.44)).toBe("1.4");
    expect(format.rate(0)).toBe("0");
    expect(format.short(1_234_567)).toBe("1.235M");
    expect(format.bytes(1023)).toBe("1,023 B");
    expect(format.bytes(1536)).toBe("1.5 KiB");
    expect(format.bytes(187e6)).toBe("178 MiB");
    expect(format.span(59)).toBe("59 s");
    expect(format.span(3_725)).toBe("1 h 02 min");
    expect(format.ago(61_000)).toBe("1 min ago");
    expect(format.seconds(0.0301)).toBe("0.03 s");
    expect(format.coordinates(40.5, -100.25)).toBe("40.500° N  100.250° W");
    expect(format.compass(-1)).toBe("N");
    expect(format.compass(225)).toBe("SW");
    expect(format.shortDigest("sha256:0123456789abcdef")).toBe("0123456789ab");
    expect(format.whole(null)).toBe("–");
  });

  it("draw a line of recent values against zero", () => {
    expect(sparkPath([], 10)).toEqual({ line: "", area: "", max: 0 });
    expect(sparkPath([0, 0], 2).line).toBe("M0.0 39.0L240.0 39.0");
    expect(sparkPath([0, 100], 2).line).toBe("M0.0 39.0L240.0 4.7");
    expect(sparkPath([5, 10], 3).max).toBe(10);
  });
});
