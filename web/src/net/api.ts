// Requests to the host's HTTP API, and its errors in the one shape the contract gives them.

export interface ApiError {
  /** The HTTP status, 0 when there was no answer. */
  status: number;
  code: string;
  message: string;
  hint: string;
  /** Byte of the statement that a query's error is about. */
  position?: number;
}

const TIMEOUT_MS = 8_000;

export async function getJson(path: string, signal?: AbortSignal): Promise<unknown> {
  const timeout = AbortSignal.timeout(TIMEOUT_MS);
  const response = await fetch(path, {
    headers: { accept: "application/json" },
    cache: "no-store",
    signal: signal ? AbortSignal.any([signal, timeout]) : timeout,
  });
  if (!response.ok) throw new ApiFailure(await errorOf(response));
  return (await response.json()) as unknown;
}

export class ApiFailure extends Error {
  constructor(readonly error: ApiError) {
    super(error.message);
  }
}

/** Reads the contract's error body, or makes do with the status line. */
export async function errorOf(response: Response): Promise<ApiError> {
  const fallback = { status: response.status, code: "http_error", message: `the host answered ${response.status}`, hint: "" };
  try {
    return parseErrorBody(await response.json(), fallback);
  } catch {
    return fallback;
  }
}

export function parseErrorBody(body: unknown, fallback: ApiError): ApiError {
  if (typeof body !== "object" || body === null || !("error" in body)) return fallback;
  const inner = body.error as Record<string, unknown> | null;
  const text = (key: string, other: string): string => {
    const value = inner?.[key];
    return typeof value === "string" ? value : other;
  };
  const error = { status: fallback.status, code: text("code", fallback.code), message: text("message", fallback.message), hint: text("hint", "") };
  const position = inner?.position;
  return typeof position === "number" && position >= 0 ? { ...error, position } : error;
}

/** Whatever was thrown, as an error that can be shown. */
export function apiError(caught: unknown): ApiError {
  if (caught instanceof ApiFailure) return caught.error;
  if (caught instanceof DOMException && caught.name === "TimeoutError") {
    return { status: 0, code: "timeout", message: "the host did not answer in time", hint: "" };
  }
  if (caught instanceof TypeError) {
    return { status: 0, code: "unreachable", message: "the host does not answer", hint: "check that tidemill up is still running" };
  }
  const message = caught instanceof Error ? caught.message : String(caught);
  return { status: 0, code: "failed", message, hint: "" };
}

/** What is said when something that was asked for did not happen. */
export function notDone(caught: unknown): string {
  const { message, hint } = apiError(caught);
  return hint === "" ? `Not done: ${message}` : `Not done: ${message} (${hint})`;
}
