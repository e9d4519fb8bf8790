// What a page shows of a topic that is faster than anyone reads: the newest few of each moment, and an
// honest count of the rest. Nothing that is not shown is parsed.

export interface Sample<T> {
  shown: T[];
  /** How many arrived, shown or not. */
  arrived: number;
}

export class Sampler<T> {
  private kept: T[] = [];
  private arrived = 0;

  constructor(private readonly limit: number) {}

  push(items: readonly T[]): void {
    this.arrived += items.length;
    this.kept = this.kept.concat(items.slice(-this.limit)).slice(-this.limit);
  }

  /** Hands over what was kept since the last call. */
  drain(): Sample<T> {
    const sample = { shown: this.kept, arrived: this.arrived };
    this.kept = [];
    this.arrived = 0;
    return sample;
  }
}

/** The last `capacity` numbers, oldest first. */
export class Ring {
  private readonly values: number[] = [];

  constructor(readonly capacity: number) {}

  push(value: number): void {
    this.values.push(value);
    if (this.values.length > this.capacity) this.values.shift();
  }

  list(): readonly number[] {
    return this.values;
  }
}
