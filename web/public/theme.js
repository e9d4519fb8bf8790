// Runs before the first paint, so that a remembered theme does not flash. See src/theme.ts.
try {
  const theme = localStorage.getItem("tidemill.theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is off; the system's theme is used.
}
