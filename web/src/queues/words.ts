// What is said about jobs, what can be done with them, and the job that a form describes. Without the page, so that it can be tested.
import { ago, moment, NONE, span, whole } from "../format.ts";
import { shown, type Content } from "../net/content.ts";
import type { Cron, Job, JobState, Settings } from "../net/queues.ts";

export type Action = "retry" | "cancel" | "drop";

export interface Column {
  name: string;
  /** Else it holds numbers, which line up on the right. */
  words: boolean;
  text: (job: Job, now: number) => string;
}

/** Characters of a payload or a result in a row. */
const PREVIEW = 120;

const word = (name: string, text: Column["text"]): Column => ({ name, words: true, text });
const figure = (name: string, text: Column["text"]): Column => ({ name, words: false, text });

const ATTEMPT = figure("Attempt", (job) => attemptText(job));
const PRIORITY = figure("Priority", ({ priority }) => String(priority));
const KEY = word("Key", ({ key }) => (key === null ? NONE : preview(key)));
const PUT = word("Put", ({ enqueuedAt }, now) => since(enqueuedAt, now));
const ENDED = word("Ended", ({ finishedAt }, now) => since(finishedAt, now));
const WORKER = word("Worker", ({ worker }) => worker ?? NONE);
const ERROR = word("Last error", ({ error }) => error ?? NONE);
const PAYLOAD = word("Payload", ({ payload }) => preview(payload));

/** What a list of jobs in a state tells of each. */
export function columnsOf(state: JobState): readonly Column[] {
  switch (state) {
    case "waiting":
    case "blocked":
      return [ATTEMPT, PRIORITY, KEY, PUT, PAYLOAD, ERROR];
    case "scheduled":
      return [ATTEMPT, PRIORITY, KEY, PUT, word("Due", ({ runAt }, now) => until(runAt, now)), PAYLOAD, ERROR];
    case "running":
      return [ATTEMPT, PRIORITY, KEY, PUT, word("Started", ({ claimedAt }, now) => since(claimedAt, now)), WORKER, PAYLOAD, ERROR];
    case "dead":
      return [ATTEMPT, PRIORITY, KEY, PUT, ENDED, WORKER, ERROR, PAYLOAD];
    case "done":
      return [ATTEMPT, PRIORITY, KEY, PUT, ENDED, WORKER, word("Result", ({ result }) => (result === null ? NONE : preview(result))), PAYLOAD];
    case "cancelled":
      return [ATTEMPT, PRIORITY, KEY, PUT, ENDED, WORKER, word("Reason", ERROR.text), PAYLOAD];
  }
}

/** What holds for all jobs of a queue. */
export function settingsText({ lease, maxAttempts, backoffFirst, backoffLongest, concurrency, perKey, ordered, keep, history }: Settings): string {
  return [
    `lease ${lasting(lease)}`,
    `${whole(maxAttempts)} ${maxAttempts === 1 ? "attempt" : "attempts"}`,
    maxAttempts > 1 && `back-off ${lasting(backoffFirst)} to ${lasting(backoffLongest)}`,
    concurrency !== null && `at most ${whole(concurrency)} at once`,
    perKey !== null && `${whole(perKey)} of a key`,
    ordered && "in order of each key",
    keep > 0 ? `ended jobs kept for ${lasting(keep)}` : "ended jobs are not kept",
    history !== null && `history in ${history}`,
  ].filter((part) => part !== false).join(", ");
}

/** A time that somebody has set: in its own units, without those that are zero. */
function lasting(seconds: number): string {
  if (seconds < 60) return `${seconds} s`;
  const parts: [number, string][] = [[Math.floor(seconds / 86_400), "d"], [Math.floor(seconds / 3600) % 24, "h"], [Math.floor(seconds / 60) % 60, "min"], [Math.floor(seconds) % 60, "s"]];
  return parts.filter(([count]) => count > 0).map(([count, unit]) => `${count} ${unit}`).join(" ");
}

export function cronText({ name, schedule, nextAt }: Cron, now: number): string {
  return `${name} at ${schedule} (UTC)${nextAt === null ? "" : `, next ${until(nextAt, now)}`}`;
}

export function attemptText({ attempt, maxAttempts }: Job): string {
  return `${whole(attempt)} of ${whole(maxAttempts)}`;
}

export function priorityText(priority: number): string {
  switch (priority) {
    case 1: return "1, first";
    case 4: return "4, last";
    default: return String(priority);
  }
}

/** All there is to say of a job but its payload and its result. */
export function factsOf(job: Job, now: number): [name: string, value: string][] {
  const facts: [string, string | null][] = [
    ["State", job.state],
    ["Attempt", attemptText(job)],
    ["Priority", priorityText(job.priority)],
    ["Key", job.key === null ? null : shown(job.key)],
    ["Unique key", job.unique],
    ["Put", timeText(job.enqueuedAt, now)],
    ["Due", job.runAt === null ? null : `${moment(job.runAt, now)} (${until(job.runAt, now)})`],
    ["Started", timeText(job.claimedAt, now)],
    ["Ended", timeText(job.finishedAt, now)],
    ["Worker", job.worker],
    [job.state === "cancelled" ? "Reason" : "Last error", job.error],
    ...job.headers.map(({ name, value }): [string, string] => [`Header ${name}`, shown(value)]),
  ];
  return facts.filter((fact): fact is [string, string] => fact[1] !== null);
}

export function actionsOf(state: string): readonly Action[] {
  switch (state) {
    case "waiting":
    case "blocked":
    case "running":
      return ["cancel"];
    case "scheduled":
      return ["retry", "cancel"];
    case "dead":
      return ["retry", "drop"];
    default:
      return [];
  }
}

export function actionText(action: Action, state: string): string {
  switch (action) {
    case "retry": return state === "scheduled" ? "Run now" : "Retry";
    case "cancel": return "Cancel…";
    case "drop": return "Drop…";
  }
}

/** What is asked before something is lost; null if nothing is. */
export function questionOf(action: Action, { id, state }: Job): string | null {
  switch (action) {
    case "retry": return null;
    case "drop": return `Drop job ${id} for good? Nothing is left of it.`;
    case "cancel":
      return state === "running"
        ? `Cancel job ${id}? It is taken from its worker, whose result is refused, and it will not run again.`
        : `Cancel job ${id}? It will not run.`;
  }
}

export function doneText(action: Action, { id, state }: Job): string {
  switch (action) {
    case "retry": return state === "scheduled" ? `Job ${id} is due now.` : `Job ${id} runs again, with its attempts counted from the start.`;
    case "cancel": return `Job ${id} is cancelled.`;
    case "drop": return `Job ${id} is dropped.`;
  }
}

export function emptyText(state: JobState): string {
  switch (state) {
    case "waiting": return "No job waits for a worker.";
    case "scheduled": return "No job is scheduled for later, and none waits for its next attempt.";
    case "blocked": return "No job waits for its key.";
    case "running": return "No job runs now.";
    case "dead": return "No job is dead: none was given up on.";
    case "done": return "No done job is kept. How long they are is the setting keep of the queue.";
    case "cancelled": return "No cancelled job is kept.";
  }
}

export interface Draft {
  payload: string;
  key: string;
  priority: string;
  /** As a field for a local date and time gives it; empty: at once. */
  runAt: string;
  unique: string;
}

/** The request that puts a job; or what is wrong with the payload. The payload goes as it is written, with all of its digits. */
export function jobBody({ payload, key, priority, runAt, unique }: Draft): { body: string } | { error: string } {
  if (payload.trim() === "") return { error: "The payload is missing. Any JSON will do, for example {}." };
  try {
    JSON.parse(payload);
  } catch (caught) {
    return { error: `The payload is not JSON: ${caught instanceof Error ? caught.message : "it cannot be read"}.` };
  }
  const others = {
    ...(key === "" ? {} : { key }),
    priority: Number(priority),
    ...(runAt === "" ? {} : { run_at: new Date(runAt).toISOString() }),
    ...(unique === "" ? {} : { unique }),
  };
  return { body: `{"payload":${payload.trim()},${JSON.stringify(others).slice(1)}` };
}

/** On one line, and not long. */
function preview({ text, binary }: Content): string {
  const line = (binary ? `hex ${text}` : text).replace(/\s+/g, " ");
  return line.length > PREVIEW ? `${line.slice(0, PREVIEW)}…` : line;
}

function since(at: number | null, now: number): string {
  return at === null ? NONE : ago(now - at);
}

function until(at: number | null, now: number): string {
  if (at === null) return NONE;
  return at > now ? `in ${span((at - now) / 1000)}` : "now";
}

function timeText(at: number | null, now: number): string | null {
  return at === null ? null : `${moment(at, now)} (${ago(now - at)})`;
}
