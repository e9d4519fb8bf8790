// What is said about the versions of a stage, and which of them it can go back to. Without the page, so that it can be tested.
import { moment, shortDigest, span } from "../format.ts";
import { MAX_COMPONENT_BYTES, type Decision, type Past, type StagePlugin } from "../net/plugins.ts";
import type { Candidate, Deployment, Stage } from "../net/status.ts";

/** The reason that the host gives for a rollback somebody asked for. */
const BY_HAND = "by hand";

/** The first bytes of a WebAssembly file. */
const MAGIC = [0x00, 0x61, 0x73, 0x6d] as const;

export function sourceText(source: string): string {
  switch (source) {
    case "file": return "from its file";
    case "push": return "pushed";
    case "rollback": return "by a rollback";
    case "promote": return "promoted from a shadow";
    default: return source;
  }
}

export function standingText(state: string): string {
  switch (state) {
    case "probation": return "on probation";
    case "rolled-back": return "rolled back";
    default: return state;
  }
}

/** What stands behind the state of a stage's version; empty while there is nothing to add. */
export function noteOf({ deployment, digest, tasks }: Stage, now: number): string {
  const notes: string[] = [];
  if (deployment?.state === "probation") notes.push(probationText(deployment, now));
  if (deployment?.state === "rolled-back") notes.push(rollbackText(deployment));
  const others = tasks.filter((task) => task.digest !== null && task.digest !== digest);
  const [first] = others;
  if (first?.digest) {
    const which = others.length === 1 ? `Partition ${first.partition} still runs` : `${others.length} of ${tasks.length} partitions still run`;
    notes.push(`${which} ${shortDigest(first.digest)}.`);
  }
  return notes.join(" ");
}

function probationText({ since, previous }: Deployment, now: number): string {
  const lasted = since === null ? "" : ` for ${span((now - since) / 1000)}`;
  const elder = previous === null ? "" : `: ${shortDigest(previous)} stands by, and takes over if it fails`;
  return `On probation${lasted}${elder}.`;
}

function rollbackText({ reason, by }: Deployment): string {
  if (reason === BY_HAND) return `Rolled back by hand, on ${by}.`;
  return `A newer version failed its probation${reason === null ? "" : `: ${reason}`}.`;
}

export function candidateText({ digest, error, at }: Candidate, now: number): string {
  const when = at === null ? "The" : `At ${moment(at, now)} the`;
  const what = digest === null ? "" : ` (it is ${shortDigest(digest)} now)`;
  return `${when} file changed${what} but was not taken: ${error}`;
}

/** What became of a version in the history. */
export function pastText({ outcome, proven, reason }: Past): string {
  if (outcome === null) return proven ? "runs" : "on probation";
  if (outcome !== "rolled-back") return proven ? "replaced" : "replaced on probation";
  if (reason === BY_HAND) return "rolled back by hand";
  return reason === null ? "rolled back" : `rolled back: ${reason}`;
}

/**
 * The version that a rollback goes to: the one that stands by, else the last one that was proven and not rolled back. The
 * page names it to the host, so that what was confirmed is what happens, whatever went on meanwhile.
 */
export function versionBefore({ digest, previous, refused, history }: StagePlugin): string | null {
  if (previous !== null) return previous;
  return history.find((past) => past.proven && past.digest !== digest && !refused.includes(past.digest))?.digest ?? null;
}

/** Why bytes cannot be a component at all, before they are sent; null if they may be one. */
export function unfit(bytes: ArrayBuffer): string | null {
  if (bytes.byteLength > MAX_COMPONENT_BYTES) return `it is larger than ${MAX_COMPONENT_BYTES / (1024 * 1024)} MiB`;
  const head = new Uint8Array(bytes, 0, Math.min(MAGIC.length, bytes.byteLength));
  return MAGIC.every((byte, index) => head[index] === byte) ? null : "it is no WebAssembly file";
}

export interface Outcome {
  tone: "good" | "bad" | "open";
  text: string;
}

/** What has become of a decision, by what the stage says now. `before` is the epoch that it was taken at. */
export function outcomeOf({ digest, epoch }: Decision, before: number, stage: Stage): Outcome {
  const name = shortDigest(digest);
  const now = stage.deployment;
  if (epoch <= before) return { tone: "good", text: `${name} runs already; nothing changed.` };
  if (now === null || now.epoch < epoch) return { tone: "open", text: `${name} is to be taken over.` };
  if (now.epoch === epoch) {
    return now.state === "probation" ? { tone: "open", text: `${name} was taken over.` } : { tone: "good", text: `${name} runs.` };
  }
  if (now.state === "rolled-back" && now.reason !== BY_HAND) {
    return { tone: "bad", text: `${name} failed its probation; ${shortDigest(stage.digest)} runs again.` };
  }
  return { tone: "good", text: `${name} ran; ${shortDigest(stage.digest)} has replaced it.` };
}
