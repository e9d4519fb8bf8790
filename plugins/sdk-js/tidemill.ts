/**
 * Write a Tidemill transform in TypeScript: export what {@link defineTransform} returns.
 *
 *     export const { lifecycle, transforming } = defineTransform({ name: "my-plugin", ... });
 */
import { write } from "tidemill:plugin/log@0.1.0";

/** One record of the log, as a stage reads it. Times are microseconds since the Unix epoch, UTC. */
export interface Message {
  readonly partition: number;
  readonly offset: bigint;
  readonly timestamp: bigint;
  /** 1 for the first delivery to this stage, then 2, 3, ... */
  readonly attempt: number;
  readonly key?: Uint8Array;
  readonly headers: readonly Header[];
  readonly payload: Uint8Array;
}

/** A named value beside the payload. Names may repeat; order is kept. */
export interface Header {
  readonly name: string;
  readonly value: Uint8Array;
}

/** A record to be written. A string stands for its bytes in UTF-8. */
export interface Emission {
  readonly payload: Uint8Array | string;
  /** Records with equal keys go to one partition and keep their order. */
  readonly key?: Uint8Array | string;
  /** A port of the plugin. None is the port `default`. */
  readonly port?: string;
  readonly headers?: readonly Header[];
  /** None takes the time of the message. */
  readonly timestamp?: bigint;
}

export type Level = "trace" | "debug" | "info" | "warn" | "error";

/** Thrown for a message that is wrong, so that delivering it again will not help. The rest of the batch goes on. */
export class Reject extends Error {}

/** Thrown for a message that is to come again, not before so many microseconds have passed. */
export class RetryLater extends Error {
  constructor(readonly micros?: bigint) {
    super("retry later");
  }
}

/** Thrown when trying again will not help at all: the stage stops and shows the reason. */
export class Fatal extends Error {}

export type Emit = (emission: Emission) => void;

/** A plugin, and how it is set up once with the stage's `config`, which the host has checked against the schema. */
export interface Transform<Config> {
  readonly name: string;
  readonly version: string;
  readonly description: string;
  /** JSON Schema of the stage's `config`. None takes none. */
  readonly configSchema?: object;
  /** Ports beyond `default`, and what they are for. */
  readonly ports?: Readonly<Record<string, string>>;
  /** Returns what is called for each message. A {@link Error} thrown here refuses the config. */
  setup(config: Config): (message: Message, emit: Emit) => void;
}

/** A line in the host's log. */
export function log(level: Level, line: string): void {
  write(level, line);
}

/** The payload as text. Rejects the message if it is not UTF-8. */
export function textOf(message: Message): string {
  try {
    return decode(message.payload);
  } catch {
    throw new Reject("payload: not UTF-8");
  }
}

/** The payload as JSON. Rejects the message if it is none. */
export function jsonOf(message: Message): unknown {
  const text = textOf(message);
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new Reject(`payload: not JSON: ${reasonOf(error)}`);
  }
}

/** What a plugin exports. */
export function defineTransform<Config = Record<string, never>>(plugin: Transform<Config>) {
  let work: ReturnType<typeof plugin.setup> | undefined;

  return {
    lifecycle: {
      describe: () => ({
        name: plugin.name,
        version: plugin.version,
        description: plugin.description,
        configSchema: plugin.configSchema ? JSON.stringify(plugin.configSchema) : "",
        ports: Object.entries(plugin.ports ?? {}).map(([name, description]) => ({ name, description })),
        tables: [],
      }),
      configure(config: string): void {
        try {
          work = plugin.setup(JSON.parse(config) as Config);
        } catch (error) {
          throw reasonOf(error);
        }
      },
    },
    transforming: {
      process(batch: Message[]) {
        if (!work) throw { tag: "fatal", val: "not configured: call `configure` before any work" };
        return processed(batch, work);
      },
    },
  };
}

function processed(batch: Message[], work: (message: Message, emit: Emit) => void) {
  const emissions: object[] = [];
  const refusals: object[] = [];
  let input = 0;
  const emit = (emission: Emission) =>
    emissions.push({
      input,
      port: emission.port,
      key: emission.key === undefined ? undefined : bytesOf(emission.key),
      headers: emission.headers ?? [],
      timestamp: emission.timestamp,
      payload: bytesOf(emission.payload),
    });
  for (; input < batch.length; input++) {
    const before = emissions.length;
    try {
      work(batch[input]!, emit);
    } catch (error) {
      emissions.length = before;
      refusals.push({ input, refusal: refusalFor(error) });
    }
  }
  return { emissions, refusals };
}

/** Errors that are not the message's are the plugin's: they end the call. */
function refusalFor(error: unknown) {
  if (error instanceof Reject) return { tag: "reject", val: error.message };
  if (error instanceof RetryLater) return { tag: "retry", val: error.micros };
  if (error instanceof Fatal) throw { tag: "fatal", val: error.message };
  write("error", error instanceof Error ? `${error.name}: ${error.message}\n${error.stack ?? ""}` : String(error));
  throw error;
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function bytesOf(value: Uint8Array | string): Uint8Array {
  return typeof value === "string" ? encode(value) : value;
}

/** Arguments of one call of `String.fromCharCode`: the engine bounds them. */
const CHUNK = 8192;

// The engine has no `TextDecoder`. The functions of URLs know UTF-8, and run natively; most text is ASCII, which needs
// none of that.

/** Throws if it is not UTF-8. */
function decode(bytes: Uint8Array): string {
  let text = "";
  for (let at = 0; at < bytes.length; at += CHUNK) {
    // An array-like of numbers is all that `apply` needs.
    text += String.fromCharCode.apply(null, bytes.subarray(at, at + CHUNK) as unknown as number[]);
  }
  return /[\x80-\xff]/.test(text) ? decodeURIComponent(escape(text)) : text;
}

function encode(text: string): Uint8Array {
  const narrow = /[^\x00-\x7f]/.test(text) ? unescape(encodeURIComponent(text)) : text;
  const bytes = new Uint8Array(narrow.length);
  for (let at = 0; at < bytes.length; at++) bytes[at] = narrow.charCodeAt(at);
  return bytes;
}
