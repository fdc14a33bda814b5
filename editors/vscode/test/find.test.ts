import { chmodSync, mkdirSync, mkdtempSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { afterEach, beforeEach, expect, test } from "vitest";
import { candidates, findServer, type Surroundings } from "../src/find";

const GOOD = "echo codestral-lsp 0.1.0";
let root: string;

beforeEach(() => {
  root = realpathSync(mkdtempSync(join(tmpdir(), "find-")));
});
afterEach(() => rmSync(root, { recursive: true }));

/** A program at a path below the test's folder. */
function program(path: string, script: string, mode = 0o755): string {
  const whole = join(root, path);
  mkdirSync(dirname(whole), { recursive: true });
  writeFileSync(whole, `#!/bin/sh\n${script}\n`);
  chmodSync(whole, mode);
  return whole;
}

function surroundings(facts: Partial<Surroundings> = {}): Surroundings {
  return {
    environment: { PATH: `${join(root, "bin")}:/nowhere` },
    home: root,
    platform: "linux",
    setting: "",
    trustedFolders: [],
    ...facts,
  };
}

const ws = () => join(root, "ws");

test.each<[string, string[], () => Partial<Surroundings>, string | RegExp]>([
  ["on PATH", ["bin/codestral-lsp", ".local/bin/codestral-lsp"], () => ({}), "bin/codestral-lsp"],
  ["in ~/.local/bin", [".local/bin/codestral-lsp"], () => ({}), ".local/bin/codestral-lsp"],
  ["of uv", [".local/share/uv/tools/codestral-lsp/bin/codestral-lsp"], () => ({}), /uv\/tools/],
  ["of pipx", [".local/share/pipx/venvs/codestral-lsp/bin/codestral-lsp"], () => ({}), /pipx\/venvs/],
  ["in a trusted .venv", ["ws/.venv/bin/codestral-lsp"], () => ({ trustedFolders: [ws()] }), /ws\/\.venv/],
  ["named", ["bin/codestral-lsp", "x/prog"], () => ({ setting: join(root, "x/prog") }), "x/prog"],
  ["named with a tilde", ["x/prog"], () => ({ setting: "~/x/prog" }), "x/prog"],
  [
    "named in the workspace",
    ["ws/v/codestral-lsp"],
    () => ({ setting: `\${workspaceFolder}/v/codestral-lsp`, trustedFolders: [ws()] }),
    "ws/v/codestral-lsp",
  ],
])("finds the one %s", async (_, programs, facts, expected) => {
  for (const path of programs) {
    program(path, GOOD);
  }
  const found = await findServer(surroundings(facts()));
  expect(found).toMatchObject({ version: "0.1.0" });
  const path = "path" in found ? found.path : "";
  expect(path).toMatch(typeof expected === "string" ? new RegExp(`^${join(root, expected)}$`) : expected);
});

test.each<[string, [string, string, number?][], () => Partial<Surroundings>, RegExp, boolean]>([
  ["nothing anywhere", [], () => ({}), /neither on PATH/, true],
  ["a workspace that is not trusted", [["ws/.venv/bin/codestral-lsp", GOOD]], () => ({}), /neither on PATH/, true],
  ["no program", [["bin/codestral-lsp", GOOD, 0o644]], () => ({}), /neither on PATH/, true],
  ["named, but not there", [["bin/codestral-lsp", GOOD]], () => ({ setting: "/no/such" }), /\/no\/such: no prog/, true],
  ["named, but relative", [["bin/codestral-lsp", GOOD]], () => ({ setting: "bin/x" }), /an absolute path/, true],
  ["another program", [["bin/codestral-lsp", "echo hello"]], () => ({}), /found: hello/, false],
  ["one that fails", [["bin/codestral-lsp", "echo no torch >&2; exit 1"]], () => ({}), /found: no torch/, false],
  ["Windows", [["bin/codestral-lsp", GOOD]], () => ({ platform: "win32" }), /WSL/, true],
])("says why not: %s", async (_, programs, facts, problem, isMissing) => {
  for (const [path, script, mode] of programs) {
    program(path, script, mode);
  }
  const found = await findServer(surroundings(facts()));
  expect(found).toMatchObject({ problem: expect.stringMatching(problem), isMissing });
});

test("a broken one on PATH does not hide a good one", async () => {
  program("bin/codestral-lsp", "exit 3");
  const good = program(".local/bin/codestral-lsp", GOOD);
  expect(await findServer(surroundings())).toEqual({ path: good, version: "0.1.0" });
});

test("no relative place is looked at, and none twice", () => {
  const places = candidates(surroundings({ environment: { PATH: ".:rel:/a:/a:", PIPX_HOME: "p" } }));
  expect(places[0]).toBe("/a/codestral-lsp");
  expect(places.every((path) => path.startsWith("/"))).toBe(true);
  expect(new Set(places).size).toBe(places.length);
});
