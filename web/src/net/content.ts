// Keys, headers and payloads as they are shown: text as it is, JSON indented, bytes in hex.
import { object, text, type Json } from "./json.ts";

export interface Content {
  text: string;
  /** Bytes in hex stand for what is not text. */
  binary: boolean;
}

/** More characters than this are cut for the page; the host still has all of them. */
const SHOWN_MAX = 20_000;

/** The field of this name, or the one of its bytes in base64; null if neither is there. */
export function keyOf(o: Json, name: string): Content | null {
  const coded = o[`${name}_base64`];
  if (typeof coded === "string") return { text: hex(coded), binary: true };
  const value = o[name];
  return typeof value === "string" ? { text: value, binary: false } : null;
}

/** What a record or a job carries, or the beginning of it. */
export function carriedBy(o: Json): Content {
  if (typeof o.base64 === "string") return shorten({ text: hex(o.base64), binary: true });
  if (typeof o.preview_base64 === "string") return { text: hex(o.preview_base64), binary: true };
  if (typeof o.preview === "string") return { text: o.preview, binary: false };
  return shorten({ text: typeof o.text === "string" ? o.text : JSON.stringify(o.value ?? null, null, 2), binary: false });
}

export function headerOf([name, value]: unknown[]): { name: string; value: Content } {
  return {
    name: text(name),
    value: typeof value === "string" ? { text: value, binary: false } : { text: hex(text(object(value).base64)), binary: true },
  };
}

/** In a line among others. */
export function shown({ text, binary }: Content): string {
  return binary ? `hex ${text}` : text;
}

/** Bytes as people compare them: two digits each, sixteen in a line. */
export function hex(base64: string): string {
  let bytes: string;
  try {
    bytes = atob(base64);
  } catch {
    return base64;
  }
  const lines: string[] = [];
  for (let at = 0; at < bytes.length; at += 16) {
    lines.push(Array.from(bytes.slice(at, at + 16), (byte) => byte.charCodeAt(0).toString(16).padStart(2, "0")).join(" "));
  }
  return lines.join("\n");
}

function shorten({ text, binary }: Content): Content {
  return { text: text.length > SHOWN_MAX ? `${text.slice(0, SHOWN_MAX)}\n… ${text.length - SHOWN_MAX} more characters` : text, binary };
}
