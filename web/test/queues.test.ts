import { describe, expect, it } from "vitest";
import { ApiFailure, notDone } from "../src/net/api.ts";
import { parseJob, parseJobs, parseQueues, STATES, type Job } from "../src/net/queues.ts";
import { parseStatus } from "../src/net/status.ts";
import { actionsOf, attemptText, columnsOf, cronText, doneText, factsOf, jobBody, questionOf, settingsText, type Draft } from "../src/queues/words.ts";
import { href, parseRoute } from "../src/router.ts";

const START = Date.parse("2026-01-01T00:00:00Z");

const job = {
  id: 17, state: "running", priority: 1, attempt: 2, max_attempts: 10, unique_key: null, enqueued_at: "2026-01-01T00:00:00.000000Z",
  run_at: null, claimed_at: "2026-01-01T00:00:30Z", finished_at: null, worker: "host-a", error: "HTTP 503", bytes: 9,
  key: "a1", headers: [["trace", "00-ab"]], value: { a: 1 }, result: null,
};
const read = (changes: object = {}): Job => parseJob({ ...job, ...changes });
const draft = (changes: Partial<Draft>): Draft => ({ payload: "{}", key: "", priority: "2", runAt: "", unique: "", ...changes });

describe("queues", () => {
  it("are read with what they hold and how they are set", () => {
    const [queue] = parseQueues({ queues: [{
      name: "reports", paused: false, waiting: 7, scheduled: 1, blocked: 0, running: 2, dead: 3, oldest_waiting_at: "2026-01-01T00:00:00Z", oldest_waiting_s: 4.5,
      lease_s: 30, max_attempts: 10, backoff_first_s: 1, backoff_longest_s: 3600, concurrency: 50, per_key: null, ordered: true, keep_s: 5400, history: "report_jobs",
      created_at: "2026-01-01T00:00:00Z", crons: [{ name: "nightly", schedule: "0 3 * * *", next_at: "2026-01-01T03:00:00Z", fired_at: null, job: null }],
    }] });
    expect(queue).toMatchObject({ name: "reports", waiting: 7, scheduled: 1, running: 2, dead: 3, oldestWaiting: 4.5, paused: false });
    if (!queue) return;
    expect(settingsText(queue.settings)).toBe("lease 30 s, 10 attempts, back-off 1 s to 1 h, at most 50 at once, in order of each key, ended jobs kept for 1 h 30 min, history in report_jobs");
    expect(queue.crons.map((cron) => cronText(cron, START))).toEqual(["nightly at 0 3 * * * (UTC), next in 3 h 00 min"]);
  });

  it("are none where the host says something else", () => {
    expect(parseQueues(null)).toEqual([]);
    expect(parseQueues({ queues: [{}] })[0]).toMatchObject({ name: "", waiting: 0, oldestWaiting: null, paused: false, crons: [] });
  });

  it("without a job that waits have no oldest one", () => {
    expect(parseQueues({ queues: [{ name: "q", oldest_waiting_at: null, oldest_waiting_s: 0 }] })[0]?.oldestWaiting).toBeNull();
  });

  it("without attempts, back-off and keeping say so", () => {
    const [queue] = parseQueues({ queues: [{ name: "q", lease_s: 90, max_attempts: 1, keep_s: 0 }] });
    expect(queue && settingsText(queue.settings)).toBe("lease 1 min 30 s, 1 attempt, ended jobs are not kept");
  });
});

describe("jobs", () => {
  it("are read with what they carry", () => {
    expect(read()).toMatchObject({ id: 17, attempt: 2, maxAttempts: 10, priority: 1, worker: "host-a", claimedAt: START + 30_000, result: null });
    expect(read().payload).toEqual({ text: '{\n  "a": 1\n}', binary: false });
    expect(read({ value: undefined, text: "<b>no JSON" }).payload).toEqual({ text: "<b>no JSON", binary: false });
    expect(read({ value: undefined, base64: "/wA=" }).payload).toEqual({ text: "ff 00", binary: true });
    expect(read({ value: undefined, preview: '{"a' }).payload).toEqual({ text: '{"a', binary: false });
    expect(read({ value: undefined, preview_base64: "/wA=" }).payload).toEqual({ text: "ff 00", binary: true });
    expect(read({ key: undefined, key_base64: "/wA=" }).key).toEqual({ text: "ff 00", binary: true });
    expect(read({ result: { value: null } }).result).toEqual({ text: "null", binary: false });
    expect(parseJobs({ jobs: [job, job] })).toHaveLength(2);
    expect(parseJobs(null)).toEqual([]);
  });

  it("show no more of a payload than a page bears", () => {
    const { text } = read({ value: undefined, text: "x".repeat(30_000) }).payload;
    expect(text).toMatch(/\n… 10000 more characters$/);
    expect(text.length).toBeLessThan(20_100);
  });

  it("tell in each state what matters in it", () => {
    const now = START + 90_000;
    const row = (state: typeof STATES[number], changes: object): Record<string, string> =>
      Object.fromEntries(columnsOf(state).map(({ name, text }) => [name, text(read({ ...changes, state }), now)]));
    expect(row("running", {})).toEqual({ Attempt: "2 of 10", Priority: "1", Key: "a1", Put: "1 min ago", Started: "1 min ago", Worker: "host-a", Payload: '{ "a": 1 }', "Last error": "HTTP 503" });
    expect(row("scheduled", { run_at: "2026-01-01T00:02:00Z" }).Due).toBe("in 30 s");
    expect(row("scheduled", { run_at: "2026-01-01T00:01:00Z" }).Due).toBe("now");
    expect(row("done", { result: { value: "fine" } }).Result).toBe('"fine"');
    expect(row("cancelled", { error: "by hand" }).Reason).toBe("by hand");
    expect(row("dead", { key: null, worker: null })).toMatchObject({ Key: "–", Worker: "–", "Last error": "HTTP 503" });
    for (const state of STATES) expect(columnsOf(state).map(({ name }) => name)).toContain("Payload");
    expect(row("waiting", { value: "x".repeat(500) }).Payload).toHaveLength(121);
  });

  it("are told in full once they are opened", () => {
    expect(factsOf(read(), START + 90_000).map(([name]) => name)).toEqual(["State", "Attempt", "Priority", "Key", "Put", "Started", "Worker", "Last error", "Header trace"]);
    expect(new Map(factsOf(read({ state: "cancelled", error: "by hand", unique_key: "u" }), START)).get("Reason")).toBe("by hand");
    expect(attemptText(read({ attempt: 0, max_attempts: 1000 }))).toBe("0 of 1,000");
  });

  it("can be retried, cancelled or dropped by their state, after a question where something is lost", () => {
    expect(STATES.map((state) => actionsOf(state).join(" "))).toEqual(["cancel", "retry cancel", "cancel", "cancel", "retry drop", "", ""]);
    expect(actionsOf("something new")).toEqual([]);
    expect(questionOf("retry", read({ state: "dead" }))).toBeNull();
    expect(questionOf("drop", read({ state: "dead" }))).toBe("Drop job 17 for good? Nothing is left of it.");
    expect(questionOf("cancel", read())).toContain("whose result is refused");
    expect(questionOf("cancel", read({ state: "waiting" }))).toBe("Cancel job 17? It will not run.");
    expect(doneText("retry", read({ state: "scheduled" }))).toBe("Job 17 is due now.");
    expect(doneText("retry", read({ state: "dead" }))).toContain("from the start");
  });
});

describe("a job that is put", () => {
  const body = (changes: Partial<Draft>): string => {
    const written = jobBody(draft(changes));
    return "body" in written ? written.body : `no: ${written.error}`;
  };

  it("has its payload as it was written, and only what was given", () => {
    expect(body({})).toBe('{"payload":{},"priority":2}');
    expect(body({ payload: ' {"big": 12345678901234567890} \n' })).toBe('{"payload":{"big": 12345678901234567890},"priority":2}');
    expect(JSON.parse(body({ key: 'a"1', priority: "4", unique: "once", payload: "null" }))).toEqual({ payload: null, key: 'a"1', priority: 4, unique: "once" });
  });

  it("runs at a time that is meant locally", () => {
    const local = new Date(2026, 0, 2, 3, 4, 5).toISOString();
    expect(JSON.parse(body({ runAt: "2026-01-02T03:04:05" }))).toMatchObject({ run_at: local });
  });

  it("is not sent with a payload that is no JSON", () => {
    expect(body({ payload: " " })).toMatch(/^no: The payload is missing/);
    expect(body({ payload: "{a: 1}" })).toMatch(/^no: The payload is not JSON: /);
    expect(body({ payload: '{}, "key": "smuggled"' })).toMatch(/^no: The payload is not JSON: /);
  });

  it("or was refused, is told with the host's words", () => {
    expect(notDone(new ApiFailure({ status: 422, code: "bad_job", message: "priority is 9", hint: "it goes to 4" }))).toBe("Not done: priority is 9 (it goes to 4)");
    expect(notDone(new ApiFailure({ status: 409, code: "x", message: "it is done", hint: "" }))).toBe("Not done: it is done");
  });
});

describe("places and stages of queues", () => {
  it("have addresses", () => {
    expect(parseRoute("#/queues")).toEqual({ page: "queues", queue: null, state: "waiting" });
    expect(parseRoute("#/queues/reports/dead")).toEqual({ page: "queues", queue: "reports", state: "dead" });
    expect(parseRoute("#/queues/reports/nonsense")).toEqual({ page: "queues", queue: "reports", state: "waiting" });
    for (const state of STATES) expect(parseRoute(href({ page: "queues", queue: "reports", state }))).toEqual({ page: "queues", queue: "reports", state });
    expect(href({ page: "queues", queue: null, state: "dead" })).toBe("#/queues");
  });

  it("are in the status", () => {
    const status = parseStatus({ pipelines: [{ name: "p", stages: [{ name: "w", kind: "worker", queue: "reports", to: { default: "out" }, to_queues: { jobs: "more" }, jobs: { done: 5, retried: 1 } }] }] });
    expect(status.pipelines[0]?.stages[0]).toMatchObject({ queue: "reports", from: null, to: [["default", "out"]], toQueues: [["jobs", "more"]], jobs: { running: 0, done: 5, retried: 1 } });
    expect(parseStatus({ pipelines: [{ stages: [{ kind: "sink", jobs: null }] }] }).pipelines[0]?.stages[0]?.jobs).toBeNull();
  });
});
