import { describe, expect, it } from "vitest";
import { clock, moment } from "../src/format.ts";
import { MAX_COMPONENT_BYTES, parseDecision, parseStagePlugin } from "../src/net/plugins.ts";
import { parseStatus, type Stage } from "../src/net/status.ts";
import { candidateText, noteOf, outcomeOf, pastText, unfit, versionBefore } from "../src/plugins/words.ts";

const digest = (letter: string): string => `sha256:${letter.repeat(64)}`;
const short = (letter: string): string => letter.repeat(12);
const START = Date.parse("2026-01-01T00:00:00Z");

function stage(fields: object): Stage {
  const [pipeline] = parseStatus({ pipelines: [{ stages: [fields] }] }).pipelines;
  const [only] = pipeline?.stages ?? [];
  if (!only) throw new Error("no stage");
  return only;
}

const running = (letter: string, epoch: number, state: string, other: object = {}): Stage =>
  stage({ digest: digest(letter), deployment: { epoch, source: "push", state, since: "2026-01-01T00:00:00Z", by: "host-1", ...other } });

describe("the version of a stage", () => {
  it("may be unknown", () => {
    expect(stage({})).toMatchObject({ deployment: null, candidate: null });
    expect(noteOf(stage({}), START)).toBe("");
  });

  it("needs no words while it is stable", () => {
    expect(noteOf(running("b", 1, "stable"), START)).toBe("");
  });

  it("says what stands by while it is on probation", () => {
    expect(noteOf(running("b", 2, "probation", { previous: digest("a") }), START + 4_200)).toBe(
      `On probation for 4 s: ${short("a")} stands by, and takes over if it fails.`,
    );
  });

  it("says why the one after it was rolled back, and by whom if by hand", () => {
    expect(noteOf(running("a", 3, "rolled-back", { reason: "at offset 7: the plugin trapped" }), START)).toBe(
      "A newer version failed its probation: at offset 7: the plugin trapped.",
    );
    expect(noteOf(running("a", 3, "rolled-back", { reason: "by hand" }), START)).toBe("Rolled back by hand, on host-1.");
  });

  it("names the partitions that still run another", () => {
    const task = (partition: number, letter: string | null): object => ({ partition, state: "running", digest: letter && digest(letter) });
    expect(noteOf(stage({ digest: digest("b"), tasks: [task(0, "b"), task(1, "a"), task(2, null)] }), START)).toBe(`Partition 1 still runs ${short("a")}.`);
    expect(noteOf(stage({ digest: digest("b"), tasks: [task(0, "a"), task(1, "a"), task(2, "b")] }), START)).toBe(`2 of 3 partitions still run ${short("a")}.`);
  });

  it("keeps what was not taken, with its reason", () => {
    const { candidate } = stage({ candidate: { digest: null, from: "p/watch.wasm", error: "it is cut off", at: "2026-01-01T00:00:00Z" } });
    expect(candidate).toEqual({ digest: null, from: "p/watch.wasm", error: "it is cut off", at: START });
    expect(candidate && candidateText({ ...candidate, at: null }, START)).toBe("The file changed but was not taken: it is cut off");
    expect(candidate && candidateText({ ...candidate, digest: digest("c") }, START)).toBe(
      `At ${clock(START)} the file changed (it is ${short("c")} now) but was not taken: it is cut off`,
    );
  });
});

describe("what becomes of a push", () => {
  const pushed = parseDecision({ digest: digest("b"), epoch: 2, state: "probation" });

  it("is open until the probation is over", () => {
    expect(outcomeOf(pushed, 1, running("a", 1, "stable")).tone).toBe("open");
    expect(outcomeOf(pushed, 1, stage({})).tone).toBe("open");
    expect(outcomeOf(pushed, 1, running("b", 2, "probation"))).toEqual({ tone: "open", text: `${short("b")} was taken over.` });
    expect(outcomeOf(pushed, 1, running("b", 2, "stable"))).toEqual({ tone: "good", text: `${short("b")} runs.` });
  });

  it("is bad when it was rolled back, and not when it was replaced", () => {
    expect(outcomeOf(pushed, 1, running("a", 3, "rolled-back", { reason: "it traps" }))).toEqual({
      tone: "bad",
      text: `${short("b")} failed its probation; ${short("a")} runs again.`,
    });
    expect(outcomeOf(pushed, 1, running("a", 3, "rolled-back", { reason: "by hand" })).tone).toBe("good");
    expect(outcomeOf(pushed, 1, running("c", 3, "probation")).text).toBe(`${short("b")} ran; ${short("c")} has replaced it.`);
  });

  it("is nothing when it ran already", () => {
    expect(outcomeOf(pushed, 2, running("b", 2, "stable")).text).toBe(`${short("b")} runs already; nothing changed.`);
  });
});

describe("a rollback", () => {
  const past = (letter: string, proven: boolean): object => ({ digest: digest(letter), proven });
  const before = (fields: object): string | null => versionBefore(parseStagePlugin({ digest: digest("d"), ...fields }));

  it("goes to what stands by", () => {
    expect(before({ previous: digest("a"), history: [past("d", false), past("b", true)] })).toBe(digest("a"));
  });

  it("else to the last one that was proven and not rolled back", () => {
    const history = [past("d", true), past("c", true), past("d", true), past("b", false), past("a", true)];
    expect(before({ history })).toBe(digest("c"));
    expect(before({ history, refused: [digest("c")] })).toBe(digest("a"));
    expect(before({ history: [past("d", true)] })).toBeNull();
    expect(before({})).toBeNull();
  });
});

describe("the history", () => {
  it("says how each version ended", () => {
    const ends = [
      { proven: true }, { proven: false }, { proven: true, outcome: "replaced" }, { proven: false, outcome: "replaced" },
      { proven: true, outcome: "rolled-back", reason: "by hand" }, { outcome: "rolled-back", reason: "it traps" },
    ];
    expect(parseStagePlugin({ history: ends }).history.map(pastText)).toEqual([
      "runs", "on probation", "replaced", "replaced on probation", "rolled back by hand", "rolled back: it traps",
    ]);
  });

  it("gives the date only on other days", () => {
    const noon = new Date(2026, 0, 2, 12, 0, 5).getTime();
    expect(moment(noon, noon + 60_000)).toBe("12:00:05");
    expect(moment(noon, noon + 86_400_000)).toBe("2026-01-02 12:00:05");
  });
});

describe("bytes to send", () => {
  it("must begin as WebAssembly does, and be no larger than the host takes", () => {
    expect(unfit(new Uint8Array([0x00, 0x61, 0x73, 0x6d, 0x0d, 0x00, 0x01, 0x00]).buffer)).toBeNull();
    expect(unfit(new Uint8Array([0x00, 0x61]).buffer)).toBe("it is no WebAssembly file");
    expect(unfit(new ArrayBuffer(0))).toBe("it is no WebAssembly file");
    expect(unfit(new ArrayBuffer(MAX_COMPONENT_BYTES + 1))).toBe("it is larger than 64 MiB");
  });
});

describe("the pipeline files", () => {
  it("are right unless the host says why not", () => {
    expect(parseStatus({ pipeline_files: null }).filesError).toBeNull();
    expect(parseStatus({ pipeline_files: { error: "a.toml:1:1: no", at: "2026-01-01T00:00:00Z" } }).filesError).toEqual({ error: "a.toml:1:1: no", at: START });
  });
});
