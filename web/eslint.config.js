// Lint rules: the strict, type-checked set, because every value that arrives here was written by someone else.
import js from "@eslint/js";
import globals from "globals";
import tseslint from "typescript-eslint";

export default tseslint.config(
  { ignores: ["dist/", "node_modules/"] },
  js.configs.recommended,
  {
    files: ["**/*.ts"],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/consistent-type-definitions": ["error", "interface"],
      eqeqeq: "error",
      "no-console": "error",
      // Payloads are text nodes, never markup.
      "no-restricted-properties": [
        "error",
        { property: "innerHTML", message: "payloads are not trusted: build text nodes with dom.ts" },
        { property: "outerHTML", message: "payloads are not trusted: build text nodes with dom.ts" },
        { property: "insertAdjacentHTML", message: "payloads are not trusted: build text nodes with dom.ts" },
      ],
    },
  },
  { files: ["**/*.mjs", "**/*.js"], languageOptions: { globals: { ...globals.node, ...globals.browser } } },
);
