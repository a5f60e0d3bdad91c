// What is told while waiting: how far it is, and the seconds. A screen reader hears of it now and then.

import type { Step } from "./engines/types";
import { announce, element, number } from "./page";

const TICK = 250; // ms
const QUIET = 4000; // ms between two things that are said aloud
const MEGABYTE = 1e6;

export interface Clock {
  progress(step: Step): void;
  stop(): void;
}

/** Show the name of the case, and how far it is until the clock is stopped. */
export function startClock(name: string): Clock {
  const begun = performance.now();
  let now: Step | null = null;
  let [said, heard] = ["Outlining", begun];
  const tick = () => {
    const seconds = Math.floor((performance.now() - begun) / 1000);
    document.querySelector(".waiting-what")!.textContent = [now ? describe(now) : "Outlining…", seconds >= 1 ? `${seconds} s` : ""].filter(Boolean).join(" · ");
    const news = now && speak(now);
    if (!news || news === said || performance.now() - heard < QUIET) return;
    [said, heard] = [news, performance.now()];
    announce(news);
  };
  document.querySelector(".waiting-name")!.textContent = name;
  fill(null);
  tick();
  announce(said);
  const timer = setInterval(tick, TICK);
  return {
    progress(step) {
      now = step;
      fill(share(step));
      tick();
    },
    stop: () => clearInterval(timer),
  };
}

/** The bar, and the title of the page, which is all that is seen of it in another tab. */
function fill(percent: number | null): void {
  const bar = element("bar");
  if (percent === null) {
    bar.removeAttribute("aria-valuenow");
    bar.style.removeProperty("--share");
  } else {
    bar.setAttribute("aria-valuenow", String(percent));
    bar.style.setProperty("--share", `${percent}%`);
  }
  document.title = `${percent === null ? "Outlining…" : `${percent} %`} – brainseg`;
}

function share({ stage, done, all }: Step): number | null {
  return all && (stage === "uploading" || stage === "outlining") ? Math.min(100, Math.round((100 * done) / all)) : null;
}

export function describe({ stage, done, all, place }: Step): string {
  const megabytes = (bytes: number) => number(bytes / MEGABYTE, 1);
  if (stage === "uploading") return all ? `Sending: ${megabytes(done)} of ${megabytes(all)} MB` : `Sending: ${megabytes(done)} MB`;
  if (stage === "waiting") return place === null ? "Waiting for the server" : place === 1 ? "Waiting: next in the queue" : `Waiting: number ${number(place)} in the queue`;
  if (stage === "reading") return "The server reads it";
  if (stage === "answering") return "Receiving the answer";
  return all ? `Slice ${number(done)} of ${number(all)}` : "Outlining…";
}

/** The same in larger steps. */
function speak(step: Step): string {
  if (step.stage === "uploading") return "Sending";
  const percent = share(step);
  return percent === null ? describe(step) : percent < 50 ? "Outlining" : "Outlining, half done";
}
