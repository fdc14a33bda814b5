import { expect, test } from "vitest";
import { Crashes } from "../src/crashes";
import { menuOf } from "../src/menu";
import { counted, type ServerStatus, type Situation, shownOf } from "../src/status";

type State = NonNullable<ServerStatus["codestral"]>;

function running(codestral: State, message = "m", kind: ServerStatus["kind"] = "Normal"): Situation {
  return { process: "running", version: "0.1.0", server: { busy: false, message, kind, codestral } };
}

const FIX = { title: "Fix", command: "codestral.fix", arguments: [1] };

test.each<[Situation, string, string, string?]>([
  [{ process: "disabled" }, "$(circle-slash) codestral: off", "normal"],
  [{ process: "missing", problem: "p" }, "$(warning) codestral: not installed", "warning", "How to install"],
  [{ process: "failed", problem: "p" }, "$(error) codestral: stopped", "error", "Restart"],
  [{ process: "starting" }, "$(loading~spin) codestral: starting", "normal"],
  [{ process: "running" }, "$(check) codestral", "normal"],
  [{ process: "running", progress: { message: "m", percentage: 7 } }, "$(sync~spin) codestral: reading 7 %", "normal"],
  [running({ state: "starting" }), "$(loading~spin) codestral: starting", "normal"],
  [running({ state: "loading", percent: 40.7 }), "$(loading~spin) codestral: loading 40 %", "normal"],
  [running({ state: "loading" }), "$(loading~spin) codestral: loading", "normal"],
  [
    running({ state: "reading", done: 12_345, total: 200_000 }),
    "$(sync~spin) codestral: reading 12k of 200k",
    "normal",
  ],
  [running({ state: "reading", percent: 3 }), "$(sync~spin) codestral: reading 3 %", "normal"],
  [running({ state: "ready" }), "$(check) codestral", "normal"],
  [running({ state: "thinking" }), "$(loading~spin) codestral", "normal"],
  [running({ state: "paused" }), "$(debug-pause) codestral: paused", "normal"],
  [running({ state: "off", reason: "python is off" }), "$(circle-slash) codestral: python is off", "normal"],
  [
    running({ state: "off", reason: "a reason that is far too long for a status bar" }),
    "$(circle-slash) codestral: a reason that is far too long f…",
    "normal",
  ],
  [running({ state: "error" }, "no model", "Error"), "$(error) codestral: no model", "error"],
  [running({ state: "error" }, "no git", "Warning"), "$(warning) codestral: no git", "warning"],
  [{ process: "running", server: { busy: true, message: "", kind: "Normal" } }, "$(loading~spin) codestral", "normal"],
  [{ process: "running", server: { busy: false, message: "", kind: "Warning" } }, "$(warning) codestral", "warning"],
  [
    { process: "running", isEditorOff: true },
    "$(circle-slash) codestral: off in VS Code",
    "normal",
    "Open the setting",
  ],
])("%o is shown as %s", (situation, text, level, action) => {
  const shown = shownOf(situation);
  expect([shown.text, shown.level, shown.action?.title]).toEqual([text, level, action]);
});

test("a state that this extension does not know is shown by its kind", () => {
  const server = { busy: false, message: "m", kind: "Error", codestral: { state: "new" } } as unknown as ServerStatus;
  expect(shownOf({ process: "running", server })).toEqual({
    text: "$(error) codestral",
    tooltip: "m",
    level: "error",
  });
});

test.each([
  [0, "0"],
  [999, "999"],
  [1000, "1k"],
  [262_144, "262k"],
  [999_499, "999k"],
  [999_500, "1.0M"],
  [1_250_000, "1.3M"],
])("%i tokens are %s", (n, expected) => {
  expect(counted(n)).toBe(expected);
});

test.each<[string, Situation, string[], string[]]>([
  ["running", running({ state: "ready" }), ["trigger", "toggleLanguage", "pause", "whatIsRead"], ["resume"]],
  ["paused", running({ state: "paused" }), ["resume"], ["pause"]],
  ["missing", { process: "missing", problem: "p" }, ["howToInstall", "chooseProgram", "restart"], ["pause"]],
  ["failed", { process: "failed", problem: "p" }, ["restart", "showLog", "chooseProgram"], ["trigger"]],
])("the menu when %s", (_, situation, there, absent) => {
  const rows = menuOf({ situation, shown: shownOf(situation), language: { id: "python", isOn: true } });
  const commands = rows.map(({ command }) => command);
  expect(commands).toEqual(expect.arrayContaining(there.map((name) => `codestralLsp.${name}`)));
  expect(commands).not.toEqual(expect.arrayContaining(absent.map((name) => `codestralLsp.${name}`)));
});

test("what the server offers comes first, with its arguments", () => {
  const situation = running({ state: "error" }, "m", "Error");
  const server = { ...(situation.server as ServerStatus), command: FIX };
  const [first] = menuOf({ situation, shown: shownOf({ ...situation, server }) });
  expect(first).toEqual({ label: "$(lightbulb) Fix", description: "m", command: "codestral.fix", arguments: [1] });
});

test.each([
  ["codestral.log", "codestralLsp.showDaemonLog"],
  ["codestral.resume", "codestralLsp.resume"],
  ["codestral.other", "codestral.other"],
])("the server's %s is done by %s, and stands in the menu once", (command, expected) => {
  const situation = running({ state: "paused" });
  const server = { ...(situation.server as ServerStatus), command: { title: "t", command, arguments: [] } };
  const commands = menuOf({ situation, shown: shownOf({ ...situation, server }) }).map((row) => row.command);
  expect(commands[0]).toBe(expected);
  expect(commands.filter((each) => each === expected)).toHaveLength(1);
});

test("the menu turns the language of the document off, or on again", () => {
  const situation = running({ state: "ready" });
  const labels = (isOn: boolean) =>
    menuOf({ situation, shown: shownOf(situation), language: { id: "go", isOn } }).map(({ label }) => label);
  expect(labels(true)).toContain("$(code) Turn off for go");
  expect(labels(false)).toContain("$(code) Turn on for go");
});

test("one crash too many in a short time", () => {
  const crashes = new Crashes({ most: 2, withinMs: 100 });
  expect([0, 10, 120, 130, 140].map((now) => crashes.add(now))).toEqual([false, false, false, false, true]);
});
