// Build of the console: everything ends up in dist/, with relative paths and nothing inline, so that the
// host can serve it under `default-src 'self'`.
import { defineConfig } from "vitest/config";
import { basemap } from "./build/basemap.ts";

export default defineConfig({
  base: "./",
  plugins: [basemap()],
  build: {
    target: "es2022",
    outDir: "dist",
    emptyOutDir: true,
    // The polyfill would be one more script for browsers that cannot run this page anyway.
    modulePreload: { polyfill: false },
    // Never turn an asset into a data: URL; the policy allows them for images only.
    assetsInlineLimit: 0,
  },
  test: { include: ["test/**/*.test.ts"] },
  server: {
    host: "127.0.0.1",
    proxy: { "/v1": { target: "http://127.0.0.1:8080", changeOrigin: true } },
  },
});
