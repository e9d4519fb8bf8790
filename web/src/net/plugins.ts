// The component of a stage: which ran, going back to one, and sending another. Sending goes through XMLHttpRequest,
// because only that tells how much of a body is on its way.
import { ApiFailure, errorOf, getJson, parseErrorBody } from "./api.ts";
import { array, number, object, parse, text, textOrNull, timeOrNull, type Json } from "./json.ts";

/** The host takes no larger component. */
export const MAX_COMPONENT_BYTES = 64 * 1024 * 1024;

/** A component is compiled before the host answers, which takes seconds for a large one on a busy machine. */
const COMPILE_MS = 180_000;

/** What all hosts have agreed that a stage runs. */
export interface Decision {
  digest: string;
  epoch: number;
  state: string;
}

/** A version that ran, or runs. */
export interface Past {
  epoch: number;
  digest: string;
  source: string;
  startedAt: number | null;
  startedBy: string;
  proven: boolean;
  /** `replaced` or `rolled-back`; null while it runs. */
  outcome: string | null;
  reason: string | null;
}

export interface StagePlugin {
  digest: string;
  previous: string | null;
  /** What was rolled back here. */
  refused: string[];
  /** Newest first. */
  history: Past[];
}

const path = (pipeline: string, stage: string): string =>
  `/v1/pipelines/${encodeURIComponent(pipeline)}/stages/${encodeURIComponent(stage)}/plugin`;

export async function stagePlugin(pipeline: string, stage: string): Promise<StagePlugin> {
  return parseStagePlugin(await getJson(path(pipeline, stage)));
}

/** Back to the version whose digest `to` is. */
export async function rollBack(pipeline: string, stage: string, to: string): Promise<Decision> {
  const response = await fetch(`${path(pipeline, stage)}/rollback`, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json" },
    body: JSON.stringify({ to }),
    cache: "no-store",
    signal: AbortSignal.timeout(COMPILE_MS),
  });
  if (!response.ok) throw new ApiFailure(await errorOf(response));
  return parseDecision(await response.json());
}

/** Gives a stage another component. `onSent` hears the share that is sent; after 1 the host checks and compiles. */
export function push(pipeline: string, stage: string, component: ArrayBuffer, onSent: (share: number) => void): Promise<Decision> {
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    const fail = (code: string, message: string, hint: string): void => {
      reject(new ApiFailure({ status: 0, code, message, hint }));
    };
    request.open("PUT", path(pipeline, stage));
    request.timeout = COMPILE_MS;
    request.setRequestHeader("content-type", "application/wasm");
    request.setRequestHeader("accept", "application/json");
    request.upload.addEventListener("progress", ({ loaded, total }) => { onSent(total > 0 ? loaded / total : 0); });
    request.upload.addEventListener("load", () => { onSent(1); });
    request.addEventListener("error", () => { fail("unreachable", "the host does not answer", "check that tidemill up is still running"); });
    request.addEventListener("timeout", () => {
      fail("timeout", "the host did not answer in time", "it may still take the component: the stage shows what it runs");
    });
    request.addEventListener("load", () => {
      const { status } = request;
      const body = parse(request.responseText);
      if (status >= 200 && status < 300) resolve(parseDecision(body));
      else reject(new ApiFailure(parseErrorBody(body, { status, code: "http_error", message: `the host answered ${status}`, hint: "" })));
    });
    request.send(component);
  });
}

export function parseDecision(value: unknown): Decision {
  const o = object(value);
  return { digest: text(o.digest), epoch: number(o.epoch), state: text(o.state) };
}

export function parseStagePlugin(value: unknown): StagePlugin {
  const o = object(value);
  return {
    digest: text(o.digest),
    previous: textOrNull(o.previous),
    refused: array(o.refused).map((digest) => text(digest)),
    history: array(o.history).map(object).map(parsePast),
  };
}

function parsePast(o: Json): Past {
  return {
    epoch: number(o.epoch),
    digest: text(o.digest),
    source: text(o.source),
    startedAt: timeOrNull(o.started_at),
    startedBy: text(o.started_by),
    proven: o.proven === true,
    outcome: textOrNull(o.outcome),
    reason: textOrNull(o.reason),
  };
}
