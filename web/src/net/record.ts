// A record as the API gives it, and as it is shown.
import { array, number, object, parse, text, timeOrNull } from "./json.ts";

export interface LogRecord {
  partition: number;
  offset: number;
  at: number | null;
  key: string | null;
  /** The payload, ready to be shown: indented JSON, the text, or base64. */
  body: string;
  form: "json" | "text" | "base64";
  headers: [name: string, value: string][];
}

/** A payload longer than this is cut for the page; the log still has all of it. */
const BODY_MAX = 8_000;

export function parseRecord(data: string): LogRecord | null {
  const o = object(parse(data));
  if (typeof o.offset !== "number") return null;
  const [form, body] = payload(o);
  return {
    partition: number(o.partition),
    offset: o.offset,
    at: timeOrNull(o.timestamp),
    key: typeof o.key === "string" ? o.key : typeof o.key_base64 === "string" ? `base64:${o.key_base64}` : null,
    body: body.length > BODY_MAX ? `${body.slice(0, BODY_MAX)}\n… ${body.length - BODY_MAX} more characters` : body,
    form,
    headers: array(o.headers).map((pair): [string, string] => {
      const [name, value] = array(pair);
      return [text(name), typeof value === "string" ? value : `base64:${text(object(value).base64)}`];
    }),
  };
}

function payload(o: Record<string, unknown>): [LogRecord["form"], string] {
  if (typeof o.text === "string") return ["text", o.text];
  if (typeof o.base64 === "string") return ["base64", o.base64];
  return ["json", JSON.stringify(o.value ?? null, null, 2)];
}
