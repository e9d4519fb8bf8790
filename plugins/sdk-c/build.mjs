// Makes a component out of a plugin in C: node build.mjs SOURCE.c... OUT.wasm [--world NAME]
//
// Compiles it with the SDK for WebAssembly without an operating system's start-up code, and wraps the module into a
// component of the world. What the C library would ask of a system is not linked unless it is used, and a module that
// uses it is refused.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";

const here = import.meta.dirname;
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    // In a project of `tidemill plugin new` the interface lies beside the SDK, in Tidemill itself two folders up.
    wit: { type: "string", default: [join(here, "../wit"), join(here, "../../wit/0.1.0")].find(existsSync) },
    world: { type: "string", default: "transform" },
  },
});
const sources = positionals.slice(0, -1).map((path) => resolve(path));
const out = resolve(positionals.at(-1) ?? "");
if (sources.length === 0) fail("usage: node build.mjs SOURCE.c... OUT.wasm");

const tools = [process.env.TIDEMILL_TOOLS, ".tools", join(here, "../../.setup/guests")]
  .filter((folder) => folder && existsSync(join(folder, "c")))
  .map((folder) => resolve(folder))[0];
if (!tools) fail("the tools are missing; install them: tools/install.sh .tools c");

mkdirSync(dirname(out), { recursive: true });
const folder = mkdtempSync(join(dirname(out), ".build-"));
try {
  compile(join(folder, "module"));
  const component = await componentOf(join(folder, "module"));
  // In one step, so that a host that watches the folder sees whole components only.
  writeFileSync(join(folder, "component"), component);
  renameSync(join(folder, "component"), out);
} finally {
  rmSync(folder, { recursive: true });
}

function compile(module) {
  const sdk = ["transform.c", "text.c", "json.c", `bindings/${options.world}.c`].map((file) => join(here, file));
  const target = ["-target", "wasm32-wasi", "-mexec-model=reactor", "-std=gnu23", "-O2", "-s"];
  // Zig's default of 16 MiB for the stack would be the larger part of the plugin's memory.
  const stack = ["-Wl,-z,stack-size=262144"];
  const warnings = ["-Wall", "-Wextra", "-Werror"];
  const { status } = spawnSync(
    join(tools, "c/ziglang/zig"),
    ["cc", ...target, ...stack, ...warnings, "-I", here, ...sources, ...sdk, "-o", module],
    // Zig compiles the C library once, which takes half a minute.
    { stdio: "inherit", env: { ZIG_GLOBAL_CACHE_DIR: join(tools, "zig-cache"), ...process.env } },
  );
  if (status !== 0) fail("it does not compile");
}

async function componentOf(module) {
  const wasmTools = join(tools, "node_modules/@bytecodealliance/jco-transpile/dist/wasm-tools.js");
  const { componentEmbed, componentNew } = await import(pathToFileURL(wasmTools));
  const binary = new Uint8Array(readFileSync(module));
  const embedded = await componentEmbed({ binary, witSource: witSource(), world: options.world });
  try {
    return await componentNew(embedded);
  } catch (error) {
    const cause = error.message.trim().split("\n").at(-1).replace(/^\s*\d+: /, "");
    return fail(`it is no component of the world ${options.world}: ${cause}\n` +
      "       wasi_snapshot_preview1 stands for what needs a system: files, standard output, clocks");
  }
}

// The files of the package as one.
function witSource() {
  const files = readdirSync(options.wit).filter((file) => file.endsWith(".wit"));
  const [first, ...rest] = files.map((file) => readFileSync(join(options.wit, file), "utf8"));
  return [first, ...rest.map((text) => text.replace(/^package .*;$/m, ""))].join("\n");
}

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}
