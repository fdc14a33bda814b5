import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import {
  type Configuration,
  changed,
  isLanguageOn,
  needsDaemon,
  optionsOf,
  RESTRICTED_KEYS,
  SECTION,
  SERVER_KEYS,
  snakeCase,
} from "../src/settings";

const MANIFEST = JSON.parse(readFileSync(`${__dirname}/../package.json`, "utf8"));

type Values = Record<string, unknown>;

/** As VS Code merges: what the workspace says goes before what the user says. */
function configurationOf(own: Values, workspace: Values = {}): Configuration {
  return {
    get: (key) => workspace[key] ?? own[key],
    inspect: (key) => ({ globalValue: own[key], workspaceValue: workspace[key] }),
  };
}

test.each<[string, Values, Values, boolean, Values]>([
  ["nothing set: nothing sent", {}, {}, true, {}],
  ["the user's", { maxLines: 3 }, {}, true, { max_lines: 3 }],
  ["also where it is the default", { maxLines: 6 }, {}, true, { max_lines: 6 }],
  ["the workspace's goes first", { maxLines: 3 }, { maxLines: 9 }, true, { max_lines: 9 }],
  ["wrong values are for the server to judge", { delayMs: "soon" }, {}, true, { delay_ms: "soon" }],
  ["false is set", { automatic: false }, {}, true, { automatic: false }],
  ["a trusted workspace names a model", {}, { model: "/m" }, true, { model: "/m" }],
  ["one that is not trusted does not", {}, { model: "/m" }, false, {}],
  ["nor in the place of the user's", { model: "ORG/M" }, { model: "/m" }, false, { model: "ORG/M" }],
  ["what does no harm holds there too", {}, { maxLines: 2 }, false, { max_lines: 2 }],
])("options: %s", (_, own, workspace, isTrusted, expected) => {
  expect(optionsOf(configurationOf(own, workspace), { isTrusted })).toEqual(expected);
});

test.each([
  ["model", "model"],
  ["contextMaxTokens", "context_max_tokens"],
  ["delayMs", "delay_ms"],
])("%s is %s to the server", (key, expected) => {
  expect(snakeCase(key)).toBe(expected);
});

test.each<[Values, Values, string[], boolean]>([
  [{}, {}, [], false],
  [{ a: [1] }, { a: [1] }, [], false],
  [{ a: [1] }, { a: [2] }, ["a"], false],
  [{ disk_mb: 1 }, {}, ["disk_mb"], true],
  [{ delay_ms: 1 }, { memory_mb: 1 }, ["delay_ms", "memory_mb"], true],
])("changed from %o to %o", (before, after, keys, isDaemons) => {
  expect(changed(before, after)).toEqual(keys);
  expect(needsDaemon(keys)).toBe(isDaemons);
});

test.each<[Record<string, boolean>, boolean]>([
  [{}, true],
  [{ python: false }, false],
  [{ "*": false }, false],
  [{ "*": false, python: true }, true],
  [{ go: false }, true],
])("with %o python is on: %s", (languages, expected) => {
  expect(isLanguageOn(languages, "python")).toBe(expected);
});

test("the manifest has exactly these settings, each described", () => {
  const properties = MANIFEST.contributes.configuration.properties;
  const expected = [...SERVER_KEYS, "server.path"].map((key) => `${SECTION}.${key}`);
  expect(Object.keys(properties).sort()).toEqual(expected.sort());
  for (const [key, property] of Object.entries<{ markdownDescription?: string; order?: number }>(properties)) {
    expect(property.markdownDescription, key).toMatch(/\S.*\.$/s);
    expect(property.order, key).toBeTypeOf("number");
  }
  const restricted = MANIFEST.capabilities.untrustedWorkspaces.restrictedConfigurations;
  expect(restricted.sort()).toEqual([...RESTRICTED_KEYS, "server.path"].map((key) => `${SECTION}.${key}`).sort());
});
