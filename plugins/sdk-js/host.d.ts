// What a plugin has beside the language itself. There is no `console`, no timer, no `fetch` and no `TextDecoder`; reading
// the clock is a trap, and `Math.random` gives the same numbers in each instance.

declare module "tidemill:plugin/log@0.1.0" {
  export function write(level: "trace" | "debug" | "info" | "warn" | "error", message: string): void;
}
