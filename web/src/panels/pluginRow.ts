// What one stage runs: its version, how firmly that stands, what was not taken; and the ways to change it, with what became
// of them. A component comes through the file picker or is dropped anywhere on the row.
import { h, setText } from "../dom.ts";
import { ago, bytes, moment, shortDigest } from "../format.ts";
import { apiError } from "../net/api.ts";
import { push, rollBack, stagePlugin, type Decision } from "../net/plugins.ts";
import type { Stage } from "../net/status.ts";
import { candidateText, noteOf, outcomeOf, sourceText, standingText, unfit, versionBefore, type Outcome } from "../plugins/words.ts";
import { icon } from "./icons.ts";
import { PluginHistory } from "./pluginHistory.ts";

const COPIED_MS = 1_500;
const SELECT_MS = 20_000;

export class PluginRow {
  private readonly name = h("h4");
  private readonly plugin = h("span", { class: "plugin-name" });
  private readonly digest = h("code");
  private readonly copy = h("button", { type: "button", class: "digest" }, this.digest, icon("copy"));
  private readonly standing = h("span", { class: "standing" });
  private readonly since = h("span", { class: "plugin-since" });
  private readonly note = h("p", { class: "plugin-note" });
  private readonly candidate = h("p", { class: "plugin-note is-bad" });
  private readonly input = h("input", { type: "file", class: "sr", accept: ".wasm,application/wasm", tabindex: -1 });
  private readonly pushButton = h("button", { type: "button", class: "button" }, "Push…");
  private readonly backButton = h("button", { type: "button", class: "button" }, "Roll back");
  private readonly historyButton = h("button", { type: "button", class: "button", "aria-expanded": "false" }, "History");
  private readonly question = h("p");
  private readonly yes = h("button", { type: "button", class: "button is-danger" }, "Roll back");
  private readonly no = h("button", { type: "button", class: "button" }, "Cancel");
  private readonly confirm = h("div", { class: "plugin-confirm", role: "group", "aria-label": "Confirm the rollback", hidden: true }, this.question, h("div", { class: "plugin-actions" }, this.yes, this.no));
  private readonly progress = h("progress", { max: 1, "aria-label": "Sent" });
  private readonly outcome = h("p", { class: "plugin-outcome", role: "status" });
  private readonly history: PluginHistory;
  readonly element: HTMLElement;

  private stage: Stage | null = null;
  private busy = false;
  private target = "";
  /** The button shows what became of copying. */
  private copied = false;
  /** What was asked for last and the epoch it was asked at: its end is shown when the status tells it. */
  private asked: { decision: Decision; before: number } | null = null;

  constructor(private readonly pipeline: string, private readonly stageName: string) {
    this.history = new PluginHistory(pipeline, stageName, (digest) => { this.ask(`Go back to ${shortDigest(digest)}?`, digest); });
    this.progress.hidden = true;
    this.pushButton.setAttribute("aria-label", `Push a component to ${stageName}`);
    this.backButton.setAttribute("aria-label", `Roll ${stageName} back`);
    this.historyButton.setAttribute("aria-label", `History of ${stageName}`);
    this.input.setAttribute("aria-label", `Component for ${stageName}`);
    this.element = h(
      "li",
      { class: "plugin" },
      h("div", { class: "plugin-head" }, this.name, this.plugin, this.copy, this.standing, this.since),
      h("div", { class: "plugin-actions" }, this.pushButton, this.input, this.backButton, this.historyButton),
      this.note,
      this.candidate,
      this.confirm,
      this.progress,
      this.outcome,
      this.history.element,
    );
    this.listen();
  }

  update(stage: Stage): void {
    this.stage = stage;
    const { deployment, candidate } = stage;
    const now = Date.now();
    setText(this.name, stage.name);
    setText(this.plugin, `${stage.plugin} ${stage.version}`);
    if (!this.copied) setText(this.digest, shortDigest(stage.digest));
    this.copy.title = stage.digest;
    this.copy.setAttribute("aria-label", `Copy the digest ${shortDigest(stage.digest)} of ${stage.name}`);
    this.standing.hidden = deployment === null;
    this.standing.dataset.standing = deployment?.state ?? "";
    setText(this.standing, standingText(deployment?.state ?? ""));
    const since = deployment?.since ?? null;
    setText(this.since, deployment === null || since === null ? "" : `${sourceText(deployment.source)}, ${moment(since, now)} (${ago(now - since)})`);
    this.since.title = deployment === null ? "" : `${since === null ? "" : new Date(since).toISOString()} on ${deployment.by}`;
    const note = noteOf(stage, now);
    setText(this.note, note);
    this.note.hidden = note === "";
    setText(this.candidate, candidate === null ? "" : candidateText(candidate, now));
    this.candidate.title = candidate === null ? "" : [candidate.from, candidate.digest ?? ""].join("\n").trim();
    this.candidate.hidden = candidate === null;
    // The first version has nothing before it.
    this.backButton.hidden = (deployment?.epoch ?? 0) <= 1;
    this.history.refresh(this.mark);
    this.follow();
  }

  /** Changes with whatever changes the history. */
  private get mark(): string {
    const deployment = this.stage?.deployment;
    return `${deployment?.epoch ?? 0} ${deployment?.state ?? ""}`;
  }

  private listen(): void {
    this.copy.addEventListener("click", () => { void this.copyDigest(); });
    this.pushButton.addEventListener("click", () => {
      if (!this.busy) this.input.click();
    });
    this.input.addEventListener("change", () => {
      const file = this.input.files?.[0];
      if (file) void this.send(file);
      // The same file again is a change, too.
      this.input.value = "";
    });
    this.backButton.addEventListener("click", () => { void this.askBack(); });
    this.historyButton.addEventListener("click", () => {
      this.history.toggle(this.mark);
      this.historyButton.setAttribute("aria-expanded", String(this.history.open));
    });
    this.yes.addEventListener("click", () => { void this.goBack(); });
    this.no.addEventListener("click", () => { this.closeQuestion(); });
    this.confirm.addEventListener("keydown", (event) => {
      if (event.key === "Escape") this.closeQuestion();
    });
    this.listenToDrops();
  }

  private listenToDrops(): void {
    // Entering a child comes before leaving its parent.
    let depth = 0;
    const over = (change: number): void => {
      depth = Math.max(0, depth + change);
      this.element.classList.toggle("is-over", depth > 0 && !this.busy);
    };
    this.element.addEventListener("dragenter", () => { over(1); });
    this.element.addEventListener("dragleave", () => { over(-1); });
    this.element.addEventListener("dragover", (event) => {
      event.preventDefault();
      event.stopPropagation();
      if (event.dataTransfer) event.dataTransfer.dropEffect = this.busy ? "none" : "copy";
    });
    this.element.addEventListener("drop", (event) => {
      event.preventDefault();
      over(-depth);
      const files = event.dataTransfer?.files;
      const file = files?.[0];
      if (this.busy || !file) return;
      if (files.length === 1) void this.send(file);
      else this.say({ tone: "bad", text: "A stage runs one component: drop one file." });
    });
  }

  private async send(file: File): Promise<void> {
    const before = this.stage?.deployment?.epoch ?? 0;
    await this.work("", async () => {
      const component = await file.arrayBuffer().catch(() => null);
      const wrong = component ? unfit(component) : "it cannot be read";
      if (!component || wrong) {
        this.say({ tone: "bad", text: `${file.name} was not sent: ${wrong ?? ""}.` });
        return;
      }
      const size = bytes(component.byteLength);
      this.say({ tone: "open", text: `Sending ${file.name}, ${size}.` });
      this.progress.hidden = false;
      const decision = await push(this.pipeline, this.stageName, component, (share) => {
        this.progress.value = share;
        if (share < 1) return;
        this.progress.removeAttribute("value");
        this.say({ tone: "open", text: `The host checks ${file.name}, ${size}.` });
      });
      this.settle(decision, before);
    });
  }

  /** Finds out where the way back leads, and asks whether to go it. */
  private async askBack(): Promise<void> {
    await this.work("", async () => {
      const to = versionBefore(await stagePlugin(this.pipeline, this.stageName));
      if (to === null) this.say({ tone: "bad", text: "No other version has stood its probation here. The history offers each one that ran." });
      else this.ask(`Go back to the version before, ${shortDigest(to)}?`, to);
    });
  }

  private ask(question: string, to: string): void {
    this.target = to;
    setText(this.question, `${question} What runs now, ${shortDigest(this.stage?.digest ?? "")}, then comes back by a push only, not with its file.`);
    this.confirm.hidden = false;
    this.confirm.scrollIntoView({ block: "nearest" });
    this.yes.focus();
  }

  private closeQuestion(): void {
    this.confirm.hidden = true;
    this.backButton.focus();
  }

  private async goBack(): Promise<void> {
    const before = this.stage?.deployment?.epoch ?? 0;
    this.closeQuestion();
    await this.work(`Going back to ${shortDigest(this.target)}.`, async () => {
      this.settle(await rollBack(this.pipeline, this.stageName, this.target), before);
    });
  }

  private settle(decision: Decision, before: number): void {
    this.asked = { decision, before };
    this.follow();
  }

  /** Says what has become of what was asked for, until that is known for good. */
  private follow(): void {
    if (!this.asked || !this.stage) return;
    const outcome = outcomeOf(this.asked.decision, this.asked.before, this.stage);
    this.say(outcome);
    if (outcome.tone !== "open") this.asked = null;
  }

  /** One change at a time; the buttons say so by `aria-disabled`, which keeps the focus where it is. */
  private async work(text: string, job: () => Promise<void>): Promise<void> {
    if (this.busy) return;
    this.asked = null;
    this.confirm.hidden = true;
    this.setBusy(true);
    this.say({ tone: "open", text });
    try {
      await job();
    } catch (caught) {
      const { message, hint } = apiError(caught);
      this.say({ tone: "bad", text: hint === "" ? `Not done: ${message}` : `Not done: ${message} (${hint})` });
    }
    this.progress.hidden = true;
    this.setBusy(false);
  }

  private setBusy(busy: boolean): void {
    this.busy = busy;
    this.element.setAttribute("aria-busy", String(busy));
    for (const button of [this.pushButton, this.backButton, this.yes]) button.setAttribute("aria-disabled", String(busy));
  }

  private say({ tone, text }: Outcome): void {
    this.outcome.dataset.tone = tone;
    setText(this.outcome, text);
  }

  private async copyDigest(): Promise<void> {
    const digest = this.stage?.digest ?? "";
    // Browsers give the clipboard to safe origins only; elsewhere the whole digest shows for a while, to be selected.
    const copied = "clipboard" in navigator && (await navigator.clipboard.writeText(digest).then(() => true, () => false));
    this.copied = true;
    setText(this.digest, copied ? "copied" : digest);
    window.setTimeout(() => { this.copied = false; }, copied ? COPIED_MS : SELECT_MS);
  }
}
