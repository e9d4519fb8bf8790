// What is done with jobs by hand: the question before it, and what became of it.
import { h, setText } from "../dom.ts";
import { notDone } from "../net/api.ts";
import { cancelJob, dropJob, retryJob, type Job } from "../net/queues.ts";
import { actionText, doneText, questionOf, type Action } from "../queues/words.ts";
import { Question } from "./question.ts";

const ANSWERS: Record<Action, string> = { retry: "Retry it", cancel: "Cancel it", drop: "Drop it" };

export class JobActions {
  private readonly question: Question;
  private readonly said = h("p", { class: "said", role: "status" });
  readonly element: HTMLElement;

  private busy = false;

  /** `changed` hears when something was done, `otherwise` gets the focus if the button that had it is gone. */
  constructor(private readonly changed: () => void, otherwise: HTMLElement) {
    this.question = new Question(otherwise);
    this.element = h("div", { class: "job-outcome" }, this.question.element, this.said);
  }

  /** `job` is asked for at the click, since it changes meanwhile. */
  button(action: Action, queue: string, state: string, id: number, job: () => Job | undefined): HTMLButtonElement {
    const label = actionText(action, state);
    const button = h("button", { type: "button", class: action === "retry" ? "button" : "button is-risky", "aria-label": `${label.replace("…", "")} job ${id}` }, label);
    button.addEventListener("click", () => {
      const now = job();
      if (now) this.begin(action, queue, now, button);
    });
    return button;
  }

  /** Nothing is asked and nothing was done. */
  clear(): void {
    this.question.close();
    setText(this.said, "");
  }

  say(text: string): void {
    setText(this.said, text);
  }

  private begin(action: Action, queue: string, job: Job, from: HTMLElement): void {
    const question = questionOf(action, job);
    const run = (): void => { void this.run(action, queue, job); };
    if (question === null) run();
    else this.question.ask(question, ANSWERS[action], from, run);
  }

  private async run(action: Action, queue: string, job: Job): Promise<void> {
    if (this.busy) return;
    this.busy = true;
    try {
      if (action === "retry") await retryJob(queue, job.id);
      else if (action === "cancel") await cancelJob(queue, job.id);
      else await dropJob(queue, job.id);
      this.say(doneText(action, job));
    } catch (caught) {
      this.say(notDone(caught));
    }
    this.busy = false;
    this.changed();
  }
}
