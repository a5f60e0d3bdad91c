/** A refusal in words for people: what is wrong and what to do. `again` when the same request may succeed later. */
export class Refusal extends Error {
  constructor(
    readonly what: string,
    readonly fix: string,
    readonly again = false,
  ) {
    super(what);
  }
}
