import prettier from "eslint-config-prettier";
import regexp from "eslint-plugin-regexp";
import tseslint from "typescript-eslint";

const restricted = [
  { selector: "ExportDefaultDeclaration", message: "Named exports only." },
  { selector: "TSEnumDeclaration", message: "Use a union of literals." },
  // No rule can read it. Compare texts, or write the pattern out.
  { selector: "[callee.name='RegExp']", message: "No patterns made of parts: they can't be checked." },
  {
    selector:
      ":matches(ObjectExpression, ArrayExpression, CallExpression) > SpreadElement > :matches(ObjectExpression, ArrayExpression)",
    message: "List what it has: a literal that is spread into another one says nothing, and is made for nothing.",
  },
];

/**
 * V8 takes such a function for a long-lived one and creates it in the old space, where it keeps all that it refers to,
 * such as a whole request, until the next full collection: scavenges then take 15 ms instead of 2 (burst row).
 */
const bornOld = [
  {
    selector: "AssignmentExpression[operator='='][left.type='MemberExpression'][right.type=/Function/]",
    message: "Name the function first, then assign it: V8 would create it in the old space.",
  },
  {
    selector: "ObjectExpression > Property[kind=/get|set/]",
    message: "Use a method, or a class: V8 creates the accessors of a literal in the old space.",
  },
];

export default tseslint.config(
  { ignores: ["**/dist", "coverage", "node_modules", "users", "logs", "scripts/openapi/client.ts"] },
  {
    files: ["**/*.ts", "**/*.tsx"],
    extends: [tseslint.configs.strictTypeChecked, tseslint.configs.stylisticTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/switch-exhaustiveness-check": "error",
      // Numbers in messages are what the reader wants to see.
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "no-console": "error",
      "max-lines": ["error", { max: 400 }],
      eqeqeq: ["error", "always", { null: "ignore" }],
    },
  },
  {
    // A closed set: every event once, in one file.
    files: ["src/events/catalogue.ts"],
    rules: { "max-lines": ["error", { max: 600 }] },
  },
  {
    files: ["web/src/words/*.ts"],
    rules: { "max-lines": ["error", { max: 600 }] },
  },
  {
    files: ["web/src/**/*.{ts,tsx}"],
    rules: {
      // JSX has functions that return nothing all over.
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      "no-restricted-syntax": [
        "error",
        ...restricted,
        {
          selector:
            ":matches(JSXAttribute[name.name='dangerouslySetInnerHTML'], MemberExpression[property.name=/^(inner|outer)HTML$/])",
          message: "Text nodes only: whatever comes from users or providers must stay text.",
        },
        {
          selector: "JSXAttribute[name.name='style']",
          message: "A class instead: the Content-Security-Policy allows no style attributes.",
        },
      ],
    },
  },
  {
    // A pattern that searches the same text again and again lets whoever writes that text stop the process.
    files: ["**/*.{ts,tsx,js,mjs,cjs}"],
    ignores: ["test/**"],
    plugins: { regexp },
    rules: {
      "regexp/no-dupe-disjunctions": ["error", { report: "all", reportExponentialBacktracking: "potential" }],
      "regexp/no-super-linear-backtracking": ["error", { report: "potential" }],
      "regexp/no-super-linear-move": ["error", { report: "potential", ignoreSticky: false, ignorePartial: false }],
    },
  },
  {
    files: ["src/**/*.ts"],
    ignores: ["src/main.ts", "src/cli/**"],
    rules: {
      "no-restricted-globals": ["error", { name: "process", message: "Only main.ts and cli/ touch the process." }],
      "no-restricted-syntax": ["error", ...restricted],
    },
  },
  {
    files: [
      "src/gateway/**/*.ts",
      "src/limits/**/*.ts",
      "src/quota/**/*.ts",
      "src/providers/stream/**/*.ts",
      "src/providers/attempt.ts",
      "src/providers/failover*.ts",
      "src/http/plugins/**/*.ts",
    ],
    rules: { "no-restricted-syntax": ["error", ...restricted, ...bornOld] },
  },
  {
    files: ["test/**/*.ts"],
    rules: {
      "@typescript-eslint/no-non-null-assertion": "error",
      "@typescript-eslint/no-unsafe-assignment": "off",
      "@typescript-eslint/no-unsafe-member-access": "off",
      "@typescript-eslint/no-unsafe-return": "off",
      // Helpers are objects of closures; taking a verb out of one is how tests read best.
      "@typescript-eslint/unbound-method": "off",
      "no-console": "off",
    },
  },
  prettier,
);
