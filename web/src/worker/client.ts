// The page's end of the worker: each call is answered, refused or cancelled.

import { CancelledError } from "../core/outliner";
import { Refusal } from "../core/refusal";
import type { Calls, Name, Reply, Request } from "./protocol";

export type Progress = (done: number, all: number) => void;

interface Waiting {
  resolve: (result: never) => void;
  reject: (error: unknown) => void;
  progress: Progress | undefined;
}

export class Client {
  private worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  private waiting = new Map<number, Waiting>();
  private last = 0;

  constructor() {
    this.worker.addEventListener("message", ({ data }: MessageEvent<Reply>) => this.answered(data));
    this.worker.addEventListener("error", (event) => this.lost(event.message));
  }

  call<N extends Name>(name: N, given: Calls[N]["takes"], progress?: Progress, signal?: AbortSignal): Promise<Calls[N]["gives"]> {
    const id = ++this.last;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve: resolve as (result: never) => void, reject, progress });
      signal?.addEventListener("abort", () => this.cancel(id), { once: true });
      this.send({ id, name, given } as Request);
    });
  }

  private cancel(id: number): void {
    this.send({ cancel: id });
    this.waiting.get(id)?.reject(new CancelledError());
    this.waiting.delete(id);
  }

  private send(request: Request): void {
    this.worker.postMessage(request);
  }

  private answered(reply: Reply): void {
    const waiting = this.waiting.get(reply.id);
    if (!waiting) return; // cancelled meanwhile
    if ("done" in reply) return waiting.progress?.(reply.done, reply.all);
    this.waiting.delete(reply.id);
    if ("result" in reply) waiting.resolve(reply.result as never);
    else if ("refusal" in reply) waiting.reject(new Refusal(reply.refusal.what, reply.refusal.fix, reply.refusal.again));
    else waiting.reject("cancelled" in reply ? new CancelledError() : new Error(reply.error));
  }

  private lost(message: string): void {
    const error = new Refusal(`The page's worker ended (${message || "it could not be loaded"})`, "Load the page again");
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }
}
