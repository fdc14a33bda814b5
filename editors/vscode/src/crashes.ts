// How often the server has ended by itself lately.
// One that ends again and again is left in peace until someone asks for it.

export class Crashes {
  private times: number[] = [];

  constructor(private readonly limit: { readonly most: number; readonly withinMs: number }) {}

  /** Counts one at `now`, in milliseconds. Whether it was one too many. */
  add(now: number): boolean {
    this.times = [...this.times, now].filter((time) => now - time <= this.limit.withinMs);
    return this.times.length > this.limit.most;
  }
}
