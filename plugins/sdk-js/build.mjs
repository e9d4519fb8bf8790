// Makes a component out of a plugin in TypeScript: node build.mjs SOURCE.ts OUT.wasm [--wit FOLDER --world NAME]
//
// Checks the types, bundles the source with what it imports into one module, and joins that with a JavaScript engine
// (QuickJS). The engine's own wishes (a clock, randomness, standard streams) lead to traps inside the component, which
// imports what the world does and nothing else.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { pathToFileURL } from "node:url";

const here = import.meta.dirname;
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    // In a project of `tidemill plugin new` the interface lies beside the SDK, in Tidemill itself two folders up.
    wit: { type: "string", default: [join(here, "../wit"), join(here, "../../wit/0.1.0")].find(existsSync) },
    world: { type: "string", default: "tidemill:plugin/transform" },
  },
});
if (positionals.length !== 2) fail("usage: node build.mjs SOURCE.ts OUT.wasm [--wit FOLDER --world NAME]");
const [source, out] = positionals.map((path) => resolve(path));

const tools = [process.env.TIDEMILL_TOOLS, ".tools", join(here, "../../.setup/guests")]
  .filter((folder) => folder && existsSync(join(folder, "node_modules")))
  .map((folder) => resolve(folder))[0];
if (!tools) fail("the tools are missing; install them: tools/install.sh .tools typescript");
const tool = (path) => join(tools, "node_modules", path);
const load = (path) => import(pathToFileURL(tool(path)));

checkTypes();
mkdirSync(dirname(out), { recursive: true });
const folder = mkdtempSync(join(dirname(out), ".build-"));
try {
  const component = await componentOf(await bundled());
  // In one step, so that a host that watches the folder sees whole components only.
  writeFileSync(join(folder, "component"), component);
  renameSync(join(folder, "component"), out);
} finally {
  rmSync(folder, { recursive: true });
}

function checkTypes() {
  const strict = "--noEmit --strict --noUncheckedIndexedAccess --target es2024 --module esnext --moduleResolution bundler";
  const files = [source, join(here, "host.d.ts")];
  const options = [...strict.split(" "), "--types", "", "--lib", "es2024", "--ignoreConfig"];
  const { status } = spawnSync(process.execPath, [tool("typescript/bin/tsc"), ...options, ...files], { stdio: "inherit" });
  if (status !== 0) fail("the types do not fit");
}

async function bundled() {
  const { rolldown } = await load("rolldown/dist/index.mjs");
  const bundle = await rolldown({ input: source, external: /^[a-z-]+:/, logLevel: "warn" });
  const { output } = await bundle.generate({ format: "esm" });
  return output[0].code;
}

async function componentOf(code) {
  const { componentize } = await load("componentize-qjs/index.js");
  const { component } = await componentize({
    jsSource: code,
    witPath: resolve(options.wit),
    world: options.world,
    stubWasi: true,
    // No function of the interface is asynchronous.
    sync: true,
  });
  return component;
}

function fail(message) {
  console.error(`error: ${message}`);
  process.exit(1);
}
