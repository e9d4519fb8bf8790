// Dead letters: messages that a stage gave up on, and what can be done about them.
import { ApiFailure, errorOf, getJson } from "./api.ts";
import { headerOf, hex, keyOf, type Content } from "./content.ts";
import { array, number, numberOrNull, object, text, timeOrNull, type Json } from "./json.ts";

export interface Letter {
  id: number;
  /** `dead`, or `queued` for another run. */
  state: string;
  group: string;
  stage: string;
  digest: string;
  topic: string;
  partition: number;
  offset: number;
  kind: string;
  error: string;
  attempts: number;
  failedAt: number | null;
  bytes: number;
}

/** A letter with its message. What is not text comes as base64. */
export interface WholeLetter extends Letter {
  timestamp: number | null;
  key: Content | null;
  headers: { name: string; value: Content }[];
  payload: Content;
}

export interface LetterPage {
  letters: Letter[];
  /** For the page after this one. */
  next: number | null;
}

/** Letters by their ids, or all of a group. */
export type Which = { ids: number[] } | { group: string };

const PAGE = 50;
const CHANGE_MS = 30_000;

export async function listLetters(group: string | null, before: number | null, signal: AbortSignal): Promise<LetterPage> {
  const query = new URLSearchParams({ limit: String(PAGE) });
  if (group !== null) query.set("group", group);
  if (before !== null) query.set("before", String(before));
  return parsePage(await getJson(`/v1/dead-letters?${query.toString()}`, signal));
}

export async function readLetter(id: number): Promise<WholeLetter> {
  return parseWhole(await getJson(`/v1/dead-letters/${id}`));
}

/** How many were queued. */
export async function redrive(which: Which): Promise<number> {
  return number(object(await change("redrive", which)).queued);
}

/** How many are gone, and whether there are more. */
export async function drop(which: Which): Promise<{ dropped: number; more: boolean }> {
  const answer = object(await change("drop", which));
  return { dropped: number(answer.dropped), more: answer.more === true };
}

async function change(verb: string, which: Which): Promise<unknown> {
  const response = await fetch(`/v1/dead-letters/${verb}`, {
    method: "POST",
    headers: { "content-type": "application/json", accept: "application/json" },
    body: JSON.stringify(which),
    cache: "no-store",
    signal: AbortSignal.timeout(CHANGE_MS),
  });
  if (!response.ok) throw new ApiFailure(await errorOf(response));
  return (await response.json()) as unknown;
}

export function parsePage(value: unknown): LetterPage {
  const o = object(value);
  return { letters: array(o.dead_letters).map(object).map(parseLetter), next: numberOrNull(o.next) };
}

function parseLetter(o: Json): Letter {
  return {
    id: number(o.id),
    state: text(o.state, "dead"),
    group: text(o.group),
    stage: `${text(o.pipeline)}/${text(o.stage)}`,
    digest: text(o.digest),
    topic: text(o.topic),
    partition: number(o.partition),
    offset: number(o.offset),
    kind: text(o.kind),
    error: text(o.error),
    attempts: number(o.attempts),
    failedAt: timeOrNull(o.failed_at),
    bytes: number(o.bytes),
  };
}

export function parseWhole(value: unknown): WholeLetter {
  const o = object(value);
  const record = object(o.record);
  return {
    ...parseLetter({ ...o, partition: record.partition, offset: record.offset }),
    timestamp: timeOrNull(record.timestamp),
    key: keyOf(record, "key"),
    headers: array(record.headers).map(array).map(headerOf),
    payload: typeof record.base64 === "string" ? { text: hex(record.base64), binary: true } : { text: text(record.text), binary: false },
  };
}
