import { defineConfig } from "vite";

export default defineConfig({
  root: import.meta.dirname,
  base: "/panel/",
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  build: {
    outDir: "../dist/panel",
    emptyOutDir: true,
    target: "es2022",
    // A data: URL of a font or a script would break the Content-Security-Policy.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
