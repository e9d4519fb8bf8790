// What the host gives to a plugin: the imports of `wit/0.1.0`.
declare module "tidemill:plugin/log@0.1.0" {
  export function write(level: "trace" | "debug" | "info" | "warn" | "error", message: string): void;
}
