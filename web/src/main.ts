// The console's shell: header, banners, and one page at a time.
import "./styles/base.css";
import "./styles/shell.css";
import "./styles/map.css";
import "./styles/panels.css";
import "./styles/tables.css";
import "./styles/console.css";
import "./styles/charts.css";
import "./styles/storage.css";
import "./styles/plugins.css";
import "./styles/details.css";
import "./styles/queues.css";
import { h, setText } from "./dom.ts";
import { clock } from "./format.ts";
import { installHook } from "./hook.ts";
import { StatusPoll, type HostView } from "./net/status.ts";
import { ConsolePage } from "./pages/consolePage.ts";
import { LettersPage } from "./pages/lettersPage.ts";
import { MapPage } from "./pages/mapPage.ts";
import type { Page } from "./pages/page.ts";
import { PipelinesPage } from "./pages/pipelinesPage.ts";
import { QueuesPage } from "./pages/queuesPage.ts";
import { StoragePage } from "./pages/storagePage.ts";
import { TopicsPage } from "./pages/topicsPage.ts";
import { brandMark, icon } from "./panels/icons.ts";
import { href, parseRoute, type Route } from "./router.ts";
import { currentTheme, flipTheme, onSystemTheme } from "./theme.ts";

/** A tab out of sight for this long gives its connections back; browsers allow a host only six. */
const HIDDEN_MS = 4_000;

const TABS: readonly Route[] = [{ page: "map" }, { page: "pipelines" }, { page: "letters", group: null }, { page: "queues", queue: null, state: "waiting" }, { page: "topics", topic: null }, { page: "query", sql: null }, { page: "storage" }];

class Shell {
  private readonly mapPage = new MapPage();
  private readonly pages: Record<Route["page"], Page> = {
    map: this.mapPage,
    pipelines: new PipelinesPage(),
    letters: new LettersPage(),
    queues: new QueuesPage(),
    topics: new TopicsPage(),
    query: new ConsolePage(),
    storage: new StoragePage(),
  };
  private readonly links = new Map<Route["page"], HTMLAnchorElement>();
  private readonly main = h("main", { id: "main", tabindex: -1 });
  private readonly banner = h("div", { class: "banner", role: "alert", hidden: true });
  private readonly themeButton = h("button", { type: "button", class: "icon-button" });
  private current: Page | null = null;
  private hideTimer: number | undefined;
  private view: HostView | null = null;

  mount(root: HTMLElement): void {
    const nav = h("nav", { class: "tabs", "aria-label": "Pages" });
    for (const route of TABS) {
      const link = h("a", { class: "tab", href: href(route) }, this.pages[route.page].title);
      this.links.set(route.page, link);
      nav.append(link);
    }
    root.append(
      h("header", { class: "bar" }, h("a", { class: "brand", href: "#/map", "aria-label": "Tidemill" }, brandMark(), h("span", {}, "Tidemill")), nav, this.themeButton),
      this.banner,
      this.main,
    );
    this.themeButton.addEventListener("click", () => { flipTheme(); this.themeChanged(); });
    onSystemTheme(() => { this.themeChanged(); });
    this.themeChanged();
    document.querySelector(".skip")?.addEventListener("click", (event) => {
      event.preventDefault();
      this.main.focus();
    });
    window.addEventListener("hashchange", () => { this.go(); });
    document.addEventListener("visibilitychange", () => { this.visibilityChanged(); });
    this.go();
    new StatusPoll((view) => { this.hostChanged(view); }).poke();
    installHook(this.mapPage);
  }

  private go(): void {
    const route = parseRoute(location.hash);
    const page = this.pages[route.page];
    if (page !== this.current) {
      this.current?.hide();
      this.current = page;
      this.main.replaceChildren(page.element);
      this.main.dataset.page = route.page;
      document.title = `${page.title} · Tidemill`;
      for (const [name, link] of this.links) {
        if (name === route.page) link.setAttribute("aria-current", "page");
        else link.removeAttribute("aria-current");
      }
    }
    if (this.view) page.onHost(this.view);
    page.show(route);
  }

  private themeChanged(): void {
    const dark = currentTheme() === "dark";
    const label = dark ? "Use the light theme" : "Use the dark theme";
    this.themeButton.replaceChildren(icon(dark ? "sun" : "moon"));
    this.themeButton.setAttribute("aria-label", label);
    this.themeButton.title = label;
    for (const page of Object.values(this.pages)) page.onTheme();
  }

  private visibilityChanged(): void {
    window.clearTimeout(this.hideTimer);
    if (document.hidden) this.hideTimer = window.setTimeout(() => { this.current?.hide(); }, HIDDEN_MS);
    else this.current?.show(parseRoute(location.hash));
  }

  private hostChanged(view: HostView): void {
    this.view = view;
    this.showBanner(view);
    this.current?.onHost(view);
  }

  /** One banner, the gravest matter: no answer, then data that a power cut could lose. */
  private showBanner({ status, failing }: HostView): void {
    let text = "";
    if (failing) {
      const { status: code, message, hint } = failing.error;
      const what = code === 0 ? "No answer from the host" : `The host answers ${code} (${message})`;
      text = `${what} since ${clock(failing.since)}${hint ? `: ${hint}` : ""}. The figures below are from before.`;
    } else if (status && !status.durability.durable) {
      text = `Durability is off: ${lapses(status.durability)}. A crash of Postgres or a power cut can lose acknowledged records.`;
    }
    this.banner.hidden = text === "";
    this.banner.dataset.tone = failing ? "down" : "warn";
    setText(this.banner, text);
  }
}

function lapses({ fsync, fullPageWrites, synchronousCommit }: NonNullable<HostView["status"]>["durability"]): string {
  const off: string[] = [];
  if (!fsync) off.push("fsync is off");
  if (!fullPageWrites) off.push("full_page_writes is off");
  if (synchronousCommit === "off") off.push("synchronous_commit is off");
  return off.length > 0 ? off.join(", ") : "the host reports settings that do not keep every record";
}

const root = document.getElementById("app");
if (root) new Shell().mount(root);
