// Routes live in the fragment, so the host serves one page: #/map, #/pipelines, #/topics, #/topics/NAME.

export type Route = { page: "map" } | { page: "pipelines" } | { page: "topics"; topic: string | null };

export function parseRoute(hash: string): Route {
  const parts = hash.replace(/^#\/?/, "").split("/");
  if (parts[0] === "pipelines") return { page: "pipelines" };
  if (parts[0] === "topics") return { page: "topics", topic: parts[1] ? decode(parts[1]) : null };
  return { page: "map" };
}

export function href(route: Route): string {
  if (route.page === "topics" && route.topic !== null) return `#/topics/${encodeURIComponent(route.topic)}`;
  return `#/${route.page}`;
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
