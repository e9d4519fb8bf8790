// Light or dark: the system's choice until the person makes their own, which is remembered.
// `public/theme.js` applies a remembered choice before the first paint.

export type Theme = "light" | "dark";

const KEY = "tidemill.theme";
const system = window.matchMedia("(prefers-color-scheme: dark)");

export function currentTheme(): Theme {
  const chosen = document.documentElement.dataset.theme;
  if (chosen === "light" || chosen === "dark") return chosen;
  return system.matches ? "dark" : "light";
}

export function flipTheme(): void {
  const next: Theme = currentTheme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // A browser that keeps nothing forgets the choice with the page.
  }
}

/** Calls back after the system's theme changed. */
export function onSystemTheme(callback: () => void): void {
  system.addEventListener("change", callback);
}
