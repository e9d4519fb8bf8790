// `GET /v1/status` as the page uses it, and the poll that keeps it fresh.
import { apiError, getJson, type ApiError } from "./api.ts";
import { array, number, numberOrNull, object, text, textOrNull, timeOrNull, type Json } from "./json.ts";

/** Where the version that a stage runs came from, since when, and how firmly it stands. */
export interface Deployment {
  /** Raised at each change. */
  epoch: number;
  source: string;
  state: string;
  /** What takes over if it fails its probation. */
  previous: string | null;
  /** Why the version before was rolled back. */
  reason: string | null;
  since: number | null;
  by: string;
}

/** A component that was not taken; what ran before runs on. */
export interface Candidate {
  digest: string | null;
  from: string;
  error: string;
  at: number | null;
}

export interface Stage {
  name: string;
  kind: string;
  plugin: string;
  version: string;
  digest: string;
  deployment: Deployment | null;
  candidate: Candidate | null;
  group: string | null;
  from: string | null;
  /** Whose jobs it does. */
  queue: string | null;
  to: [port: string, topic: string][];
  toQueues: [port: string, queue: string][];
  state: string;
  reason: string | null;
  restarts: number;
  recordsIn: number;
  recordsOut: number;
  refused: number;
  /** Of a worker. */
  jobs: JobCounts | null;
  inPerSecond: number;
  outPerSecond: number;
  lag: number | null;
  tasks: { partition: number; state: string; reason: string | null; digest: string | null }[];
}

/** What became of the runs of a worker in this host. */
export interface JobCounts {
  running: number;
  done: number;
  /** Attempts that failed; the job came again, or was dead after the last. */
  retried: number;
  snoozed: number;
  rejected: number;
  cancelled: number;
  /** Runs whose end came too late. */
  refused: number;
}

export interface Pipeline {
  name: string;
  file: string;
  stages: Stage[];
}

export interface Topic {
  name: string;
  partitions: number;
  format: string;
  records: number;
  recordsPerSecond: number;
  startOffsets: number[];
  nextOffsets: number[];
  segment: string;
  retention: { hot: string; cold: string };
  acks: string;
  compression: string;
  hot: { segments: number; records: number; bytes: number; bytesPerRecord: number | null };
  /** What is in the bucket; `hotBytesPerRecord` is what the same records took in Postgres. */
  cold: { objects: number; records: number; bytes: number; bytesPerRecord: number | null; hotBytesPerRecord: number | null };
}

export interface Group {
  group: string;
  topic: string;
  stage: string | null;
  lag: number;
  recordsPerSecond: number;
  partitions: { partition: number; offset: number; end: number; lag: number; owner: string | null; epoch: number }[];
}

/** How many dead letters a group has, counted up to 100,000, and how many of them are to run again. */
export interface LetterCount {
  group: string;
  letters: number;
  queued: number;
}

/** A host that works on the same database. */
export interface Member {
  host: string;
  version: string;
  url: string | null;
  /** Partitions that it runs. */
  leases: number;
}

export interface Status {
  version: string;
  host: string;
  uptimeSeconds: number;
  dataDir: string;
  postgresVersion: string;
  memoryBytes: number;
  durability: { durable: boolean; fsync: boolean; fullPageWrites: boolean; synchronousCommit: string };
  pipelines: Pipeline[];
  /** Why the pipeline files as they are do not run; what ran before goes on. */
  filesError: { error: string; at: number | null } | null;
  topics: Topic[];
  groups: Group[];
  deadLetters: LetterCount[];
  tables: { name: string; stage: string; key: string[]; rows: number | null }[];
  /** All of them, this one among them; empty from a host of an earlier version. */
  hosts: Member[];
}

export function parseStatus(value: unknown): Status {
  const o = object(value);
  const durability = object(o.durability);
  return {
    version: text(o.version),
    host: text(o.host),
    uptimeSeconds: number(o.uptime_seconds),
    dataDir: text(o.data_dir),
    postgresVersion: text(o.postgres_version),
    memoryBytes: number(o.memory_bytes),
    durability: {
      // Only an explicit "no" raises the alarm; a host that does not say is not accused.
      durable: durability.durable !== false,
      fsync: durability.fsync !== false,
      fullPageWrites: durability.full_page_writes !== false,
      synchronousCommit: text(durability.synchronous_commit, "on"),
    },
    pipelines: array(o.pipelines).map(object).map(parsePipeline),
    filesError: parseFilesError(object(o.pipeline_files)),
    topics: array(o.topics).map(object).map(parseTopic),
    groups: array(o.groups).map(object).map(parseGroup),
    deadLetters: array(o.dead_letters).map(object).map((c) => ({ group: text(c.group), letters: number(c.letters), queued: number(c.queued) })),
    tables: array(o.tables).map(object).map((t) => ({
      name: text(t.name),
      stage: text(t.stage),
      key: array(t.key).map((k) => text(k)),
      rows: numberOrNull(t.rows),
    })),
    hosts: array(o.hosts).map(object).map((m) => ({
      host: text(m.host),
      version: text(m.version),
      url: typeof m.url === "string" ? m.url : null,
      leases: number(m.leases),
    })),
  };
}

function parsePipeline(o: Json): Pipeline {
  return { name: text(o.name), file: text(o.file), stages: array(o.stages).map(object).map(parseStage) };
}

function parseFilesError(o: Json): Status["filesError"] {
  const error = text(o.error);
  return error === "" ? null : { error, at: timeOrNull(o.at) };
}

function parseDeployment(o: Json): Deployment | null {
  const state = text(o.state);
  if (state === "") return null;
  return {
    epoch: number(o.epoch),
    source: text(o.source),
    state,
    previous: textOrNull(o.previous),
    reason: textOrNull(o.reason),
    since: timeOrNull(o.since),
    by: text(o.by),
  };
}

function parseCandidate(o: Json): Candidate | null {
  const error = text(o.error);
  return error === "" ? null : { digest: textOrNull(o.digest), from: text(o.from), error, at: timeOrNull(o.at) };
}

function parseStage(o: Json): Stage {
  return {
    name: text(o.name),
    kind: text(o.kind),
    plugin: text(o.plugin),
    version: text(o.version),
    digest: text(o.digest),
    deployment: parseDeployment(object(o.deployment)),
    candidate: parseCandidate(object(o.candidate)),
    group: textOrNull(o.group),
    from: textOrNull(o.from),
    queue: textOrNull(o.queue),
    to: parsePorts(o.to),
    toQueues: parsePorts(o.to_queues),
    state: text(o.state, "unknown"),
    reason: textOrNull(o.reason),
    restarts: number(o.restarts),
    recordsIn: number(o.records_in),
    recordsOut: number(o.records_out),
    refused: number(o.refused),
    jobs: typeof o.jobs === "object" && o.jobs !== null ? parseJobCounts(object(o.jobs)) : null,
    inPerSecond: number(o.records_in_per_second),
    outPerSecond: number(o.records_out_per_second),
    lag: numberOrNull(o.lag),
    tasks: array(o.tasks).map(object).map((t) => ({
      partition: number(t.partition),
      state: text(t.state, "unknown"),
      reason: textOrNull(t.reason),
      digest: textOrNull(t.digest),
    })),
  };
}

function parseJobCounts(o: Json): JobCounts {
  return {
    running: number(o.running),
    done: number(o.done),
    retried: number(o.retried),
    snoozed: number(o.snoozed),
    rejected: number(o.rejected),
    cancelled: number(o.cancelled),
    refused: number(o.refused),
  };
}

function parsePorts(value: unknown): [port: string, target: string][] {
  return Object.entries(object(value)).map(([port, target]) => [port, text(target)]);
}

function parseTopic(o: Json): Topic {
  const hot = object(o.hot);
  const cold = object(o.cold);
  const retention = object(o.retention);
  return {
    name: text(o.name),
    partitions: number(o.partitions),
    format: text(o.format),
    records: number(o.records),
    recordsPerSecond: number(o.records_per_second),
    startOffsets: array(o.start_offsets).map((n) => number(n)),
    nextOffsets: array(o.next_offsets).map((n) => number(n)),
    segment: text(o.segment),
    retention: { hot: text(retention.hot), cold: text(retention.cold) },
    acks: text(o.acks),
    compression: text(o.compression),
    hot: {
      segments: number(hot.segments),
      records: number(hot.records),
      bytes: number(hot.bytes),
      bytesPerRecord: numberOrNull(hot.bytes_per_record),
    },
    cold: {
      objects: number(cold.objects),
      records: number(cold.records),
      bytes: number(cold.bytes),
      bytesPerRecord: numberOrNull(cold.bytes_per_record),
      hotBytesPerRecord: numberOrNull(cold.hot_bytes_per_record),
    },
  };
}

function parseGroup(o: Json): Group {
  return {
    group: text(o.group),
    topic: text(o.topic),
    stage: textOrNull(o.stage),
    lag: number(o.lag),
    recordsPerSecond: number(o.records_per_second),
    partitions: array(o.partitions).map(object).map((p) => ({
      partition: number(p.partition),
      offset: number(p.offset),
      end: number(p.end),
      lag: number(p.lag),
      owner: textOrNull(p.owner),
      epoch: number(p.epoch),
    })),
  };
}

/** What the page knows of the host: the last good answer, and since when there was none. */
export interface HostView {
  status: Status | null;
  /** When `status` arrived, in milliseconds since the epoch. */
  at: number;
  failing: { since: number; error: ApiError } | null;
}

const POLL_MS = 1_000;
const POLL_FAILING_MS = 3_000;
const POLL_HIDDEN_MS = 15_000;

/** Polls once a second, slower while the host is away or the page is hidden; one request at a time. */
export class StatusPoll {
  private timer: number | undefined;
  private busy = false;
  view: HostView = { status: null, at: 0, failing: null };

  constructor(private readonly onView: (view: HostView) => void) {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.poke();
    });
  }

  poke(): void {
    window.clearTimeout(this.timer);
    void this.poll();
  }

  private async poll(): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    try {
      const status = parseStatus(await getJson("/v1/status"));
      this.view = { status, at: Date.now(), failing: null };
    } catch (caught) {
      const since = this.view.failing?.since ?? Date.now();
      this.view = { ...this.view, failing: { since, error: apiError(caught) } };
    }
    this.busy = false;
    const wait = document.hidden ? POLL_HIDDEN_MS : this.view.failing ? POLL_FAILING_MS : POLL_MS;
    this.timer = window.setTimeout(() => void this.poll(), wait);
    this.onView(this.view);
  }
}
