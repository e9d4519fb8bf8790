// Routes live in the fragment, so the host serves one page: #/map, #/pipelines, #/letters, #/letters/GROUP, #/queues, #/queues/NAME,
// #/queues/NAME/STATE, #/topics, #/topics/NAME, #/query, #/query?sql=STATEMENT, #/storage.
import { STATES, type JobState } from "./net/queues.ts";

export type Route =
  | { page: "map" }
  | { page: "pipelines" }
  | { page: "letters"; group: string | null }
  | { page: "queues"; queue: string | null; state: JobState }
  | { page: "topics"; topic: string | null }
  | { page: "query"; sql: string | null }
  | { page: "storage" };

export function parseRoute(hash: string): Route {
  const [path = "", query = ""] = split(hash.replace(/^#\/?/, ""), "?");
  const parts = path.split("/");
  if (parts[0] === "pipelines") return { page: "pipelines" };
  if (parts[0] === "letters") return { page: "letters", group: parts[1] ? decode(parts[1]) : null };
  if (parts[0] === "queues") return { page: "queues", queue: parts[1] ? decode(parts[1]) : null, state: STATES.find((state) => state === parts[2]) ?? "waiting" };
  if (parts[0] === "topics") return { page: "topics", topic: parts[1] ? decode(parts[1]) : null };
  if (parts[0] === "query") return { page: "query", sql: query.startsWith("sql=") ? decode(query.slice(4)) : null };
  if (parts[0] === "storage") return { page: "storage" };
  return { page: "map" };
}

export function href(route: Route): string {
  if (route.page === "letters" && route.group !== null) return `#/letters/${encodeURIComponent(route.group)}`;
  if (route.page === "queues" && route.queue !== null) return `#/queues/${encodeURIComponent(route.queue)}${route.state === "waiting" ? "" : `/${route.state}`}`;
  if (route.page === "topics" && route.topic !== null) return `#/topics/${encodeURIComponent(route.topic)}`;
  if (route.page === "query" && route.sql !== null) return `#/query?sql=${encodeURIComponent(route.sql)}`;
  return `#/${route.page}`;
}

/** At the first occurrence. */
function split(text: string, by: string): string[] {
  const at = text.indexOf(by);
  return at < 0 ? [text] : [text.slice(0, at), text.slice(at + by.length)];
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
