// What a plugin has beside the language itself. There is no clock but `Date`, which stands still, and no randomness, no
// timer, no `console` and no `fetch`.

declare module "tidemill:plugin/log@0.1.0" {
  export function write(level: "trace" | "debug" | "info" | "warn" | "error", message: string): void;
}

declare class TextDecoder {
  constructor(encoding?: "utf-8", options?: { fatal?: boolean; ignoreBOM?: boolean });
  decode(bytes?: Uint8Array): string;
}

declare class TextEncoder {
  encode(text?: string): Uint8Array;
}
