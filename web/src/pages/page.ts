// What the shell asks of a page.
import type { HostView } from "../net/status.ts";
import type { Route } from "../router.ts";

export interface Page {
  readonly element: HTMLElement;
  readonly title: string;
  /** The page came into view, or its route changed; streams may open now. */
  show(route: Route): void;
  /** The page, or the whole tab, went out of view; streams close, so hidden tabs hold no connection. */
  hide(): void;
  /** A new answer of the host, about once a second. */
  onHost(view: HostView): void;
  /** The theme changed. */
  onTheme(): void;
}
