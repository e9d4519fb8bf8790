// Queues and their jobs: what there is, and what can be done about it.
import { ApiFailure, errorOf, getJson } from "./api.ts";
import { carriedBy, headerOf, keyOf, type Content } from "./content.ts";
import { array, number, numberOrNull, object, text, textOrNull, timeOrNull, type Json } from "./json.ts";

export const STATES = ["waiting", "scheduled", "blocked", "running", "dead", "done", "cancelled"] as const;
export type JobState = (typeof STATES)[number];

/** A queue with its jobs that have not ended; all but those that wait are counted up to 100,000. */
export interface Queue {
  name: string;
  waiting: number;
  scheduled: number;
  blocked: number;
  running: number;
  dead: number;
  /** How long the job waits that is next, in seconds. */
  oldestWaiting: number | null;
  paused: boolean;
  settings: Settings;
  crons: Cron[];
}

/** Times in seconds. */
export interface Settings {
  lease: number;
  maxAttempts: number;
  backoffFirst: number;
  backoffLongest: number;
  concurrency: number | null;
  perKey: number | null;
  ordered: boolean;
  keep: number;
  /** A topic. */
  history: string | null;
}

export interface Cron {
  name: string;
  schedule: string;
  nextAt: number | null;
}

export interface Job {
  id: number;
  state: string;
  /** Runs so far, the present one included. */
  attempt: number;
  maxAttempts: number;
  /** 1 (first) to 4. */
  priority: number;
  key: Content | null;
  unique: string | null;
  headers: { name: string; value: Content }[];
  payload: Content;
  /** Of the whole payload. */
  bytes: number;
  enqueuedAt: number | null;
  runAt: number | null;
  claimedAt: number | null;
  finishedAt: number | null;
  worker: string | null;
  result: Content | null;
  error: string | null;
}

export interface Put {
  id: number;
  /** False: a job with the same unique key is there, and this is its id. */
  created: boolean;
}

const CHANGE_MS = 30_000;

/** What a job that is cancelled here says of it. */
const BY_HAND = "by hand, in the console";

const pathOf = (queue: string): string => `/v1/queues/${encodeURIComponent(queue)}`;
const jobPath = (queue: string, id: number): string => `${pathOf(queue)}/jobs/${id}`;

export async function listQueues(signal: AbortSignal): Promise<Queue[]> {
  return parseQueues(await getJson("/v1/queues", signal));
}

/** Payloads and results of a list are cut to some kilobytes. */
export async function listJobs(queue: string, state: JobState, limit: number, signal: AbortSignal): Promise<Job[]> {
  const query = new URLSearchParams({ state, limit: String(limit) });
  return parseJobs(await getJson(`${pathOf(queue)}/jobs?${query.toString()}`, signal));
}

export async function readJob(queue: string, id: number, signal: AbortSignal): Promise<Job> {
  return parseJob(object(await getJson(jobPath(queue, id), signal)));
}

/** `body` is JSON as jobBody writes it. */
export async function putJob(queue: string, body: string): Promise<Put> {
  const [job] = array(object(await change("POST", `${pathOf(queue)}/jobs`, body)).jobs).map(object);
  return { id: number(job?.id), created: job?.created !== false };
}

export async function setPaused(queue: string, paused: boolean): Promise<void> {
  await change("POST", `${pathOf(queue)}/${paused ? "pause" : "resume"}`);
}

/** Runs a dead or a scheduled job now. */
export async function retryJob(queue: string, id: number): Promise<void> {
  await change("POST", `${jobPath(queue, id)}/retry`);
}

/** Ends a job that has not ended. */
export async function cancelJob(queue: string, id: number): Promise<void> {
  await change("POST", `${jobPath(queue, id)}/cancel?${new URLSearchParams({ reason: BY_HAND }).toString()}`);
}

/** Forgets a dead job. */
export async function dropJob(queue: string, id: number): Promise<void> {
  await change("DELETE", jobPath(queue, id));
}

async function change(method: string, path: string, body?: string): Promise<unknown> {
  const response = await fetch(path, {
    method,
    headers: { accept: "application/json", ...(body === undefined ? {} : { "content-type": "application/json" }) },
    body: body ?? null,
    cache: "no-store",
    signal: AbortSignal.timeout(CHANGE_MS),
  });
  if (!response.ok) throw new ApiFailure(await errorOf(response));
  return response.status === 204 ? null : ((await response.json()) as unknown);
}

export function parseQueues(value: unknown): Queue[] {
  return array(object(value).queues).map(object).map((q) => ({
    name: text(q.name),
    waiting: number(q.waiting),
    scheduled: number(q.scheduled),
    blocked: number(q.blocked),
    running: number(q.running),
    dead: number(q.dead),
    oldestWaiting: timeOrNull(q.oldest_waiting_at) === null ? null : numberOrNull(q.oldest_waiting_s),
    paused: q.paused === true,
    settings: parseSettings(q),
    crons: array(q.crons).map(object).map((c) => ({ name: text(c.name), schedule: text(c.schedule), nextAt: timeOrNull(c.next_at) })),
  }));
}

function parseSettings(o: Json): Settings {
  return {
    lease: number(o.lease_s),
    maxAttempts: number(o.max_attempts),
    backoffFirst: number(o.backoff_first_s),
    backoffLongest: number(o.backoff_longest_s),
    concurrency: numberOrNull(o.concurrency),
    perKey: numberOrNull(o.per_key),
    ordered: o.ordered === true,
    keep: number(o.keep_s),
    history: textOrNull(o.history),
  };
}

export function parseJobs(value: unknown): Job[] {
  return array(object(value).jobs).map(object).map(parseJob);
}

export function parseJob(o: Json): Job {
  return {
    id: number(o.id),
    state: text(o.state, "unknown"),
    attempt: number(o.attempt),
    maxAttempts: number(o.max_attempts),
    priority: number(o.priority),
    key: keyOf(o, "key"),
    unique: textOrNull(o.unique_key),
    headers: array(o.headers).map(array).map(headerOf),
    payload: carriedBy(o),
    bytes: number(o.bytes),
    enqueuedAt: timeOrNull(o.enqueued_at),
    runAt: timeOrNull(o.run_at),
    claimedAt: timeOrNull(o.claimed_at),
    finishedAt: timeOrNull(o.finished_at),
    worker: textOrNull(o.worker),
    result: typeof o.result === "object" && o.result !== null ? carriedBy(object(o.result)) : null,
    error: textOrNull(o.error),
  };
}
