// One reading after the other, while a page is in view.

const PAUSE_MS = 1_000;

export class Poll {
  private current: AbortController | null = null;

  /** `read` deals with its own errors; each reading begins a while after the one before has ended. */
  constructor(private readonly read: (signal: AbortSignal) => Promise<void>) {}

  /** Reads now, and drops a reading that is on its way, which may be of before. */
  poke(): void {
    this.stop();
    this.current = new AbortController();
    void this.round(this.current.signal);
  }

  stop(): void {
    this.current?.abort();
    this.current = null;
  }

  private async round(signal: AbortSignal): Promise<void> {
    await this.read(signal);
    window.setTimeout(() => { if (!signal.aborted) void this.round(signal); }, PAUSE_MS);
  }
}
