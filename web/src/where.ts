// Where it is computed: on this computer, or on the server that brought the page, if one did.

import * as api from "./api";
import * as card from "./card";
import { Refusal } from "./core/refusal";
import { Engine, type Where } from "./engines/engine";
import { checked, element, number, sentence, show } from "./page";
import { state } from "./state";

const HERE = "Your files stay on this computer: nothing is sent anywhere.";
const SERVER = "Files are sent to the server that shows this page, outlined there in memory, and not kept.";
const MEGABYTE = 1e6;

/** Whether a server stands behind the page; a static site has none. */
const hasServer = import.meta.env.MODE !== "site";

export function start(): void {
  const engine = (state.engine = new Engine((done, all) => tell(`Loading the model: ${number(done / MEGABYTE, 1)} of ${number(all / MEGABYTE, 1)} MB`)));
  if (!Engine.isPossible && hasServer) choose("server");
  show("where", hasServer);
  document.querySelectorAll("input[name=where]").forEach((radio) => radio.addEventListener("change", take));
  take();
  engine.loaded.then(
    ({ model, provider, threads }) => {
      tell(provider === "webgpu" ? "Computed on this computer's graphics card." : `Computed on this computer, ${threads === 1 ? "one thread" : `${threads} threads`}.`);
      if (!hasServer) void present(model);
    },
    (error: unknown) => {
      const told = error instanceof Refusal ? `${sentence(error.what)} ${sentence(error.fix)}` : `The model cannot be run here (${error}).`;
      tell(told);
      if (hasServer) choose("server");
      else card.missing();
    },
  );
  if (hasServer) api.model().then(card.present, card.missing);
}

/** The card's words are beside the page; its numbers come out of the model's file. */
async function present(model: Parameters<typeof card.present>[0]): Promise<void> {
  const words = await api.cardWords().catch(() => "");
  card.present({ ...model, card_markdown: words });
}

function choose(where: Where): void {
  document.querySelector<HTMLInputElement>(`input[name=where][value=${where}]`)!.checked = true;
  take();
}

function take(): void {
  const where = checked("where") as Where;
  state.engine!.where = where;
  element("privacy").textContent = where === "here" ? HERE : SERVER;
  const more = where === "server" ? "PNG, TIF, JPEG, NIfTI, NRRD, MetaImage, MGH, or DICOM" : "PNG, TIF, JPEG, NIfTI, or DICOM";
  element("kinds").textContent = `An axial slice, a whole series${where === "here" ? " or a folder of numbered slices" : ""}: ${more} as files, a folder or a zip.`;
}

function tell(text: string): void {
  element("model-state").textContent = text;
}
