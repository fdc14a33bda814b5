import { beforeEach, expect, test } from "vitest";
import { followFocus, provideInline } from "../src/inline";
import type { Server } from "../src/server";
import { window } from "./vscode";

type Provide = ReturnType<typeof provideInline>;

const ITEM = {
  insertText: "drawal(",
  range: { at: 1 },
  command: { title: "t", command: "codestral.accept", arguments: ["7"] },
};
const DOCUMENT = { uri: { scheme: "file", path: "/a.py" } };
const told: [string, object][] = [];
let started: () => void;

/** A server that writes down what it is told. */
const server = {
  tell: (method: string, makeParams: (client: object) => object) =>
    told.push([
      method,
      makeParams({
        code2ProtocolConverter: {
          asRange: (range: object) => range,
          asCommand: (command: object) => command,
          asUri: (uri: { scheme: string; path: string }) => `${uri.scheme}://${uri.path}`,
        },
      }),
    ]),
  onDidStart: (listener: () => void) => {
    started = listener;
  },
} as unknown as Server;

beforeEach(() => {
  told.length = 0;
  window.listeners.length = 0;
  window.activeTextEditor = { document: DOCUMENT, selections: [{}] };
});

async function provided(answer: unknown, { isCancelled = false } = {}): Promise<{ result: unknown; isAsked: boolean }> {
  let isAsked = false;
  const next = () => {
    isAsked = true;
    return answer;
  };
  const provide = provideInline(server) as (...words: unknown[]) => ReturnType<Provide>;
  const result = await provide(DOCUMENT, {}, {}, { isCancellationRequested: isCancelled }, next);
  return { result, isAsked };
}

test.each([
  ["a list", { items: [ITEM, { insertText: "other" }] }],
  ["an array", [ITEM]],
])("%s goes through, and the server is told what is shown first", async (_, answer) => {
  expect((await provided(answer)).result).toBe(answer);
  expect(told).toEqual([["textDocument/didShowCompletion", { item: ITEM }]]);
});

test("a snippet is told as its text", async () => {
  await provided([{ insertText: { value: "a$0" } }]);
  expect(told).toEqual([["textDocument/didShowCompletion", { item: { insertText: "a$0" } }]]);
});

test.each([
  ["nothing", undefined, false],
  ["no items", { items: [] }, false],
  ["what is no longer wanted", [ITEM], true],
])("%s is not told as shown", async (_, answer, isCancelled) => {
  expect((await provided(answer, { isCancelled })).result).toBe(answer);
  expect(told).toEqual([]);
});

test("with several cursors nothing is asked", async () => {
  window.activeTextEditor = { document: DOCUMENT, selections: [{}, {}] };
  expect(await provided([ITEM])).toEqual({ result: undefined, isAsked: false });
  window.activeTextEditor = { document: { uri: DOCUMENT.uri }, selections: [{}, {}] }; // they are in another one
  expect(await provided([ITEM])).toMatchObject({ isAsked: true });
});

test("the server is told which document is looked at, again after each start", () => {
  followFocus(server);
  started();
  window.listeners[0]?.({ document: { uri: { scheme: "output", path: "log" } } });
  window.listeners[0]?.(undefined);
  const focus = "textDocument/didFocus";
  expect(told).toEqual([
    [focus, { textDocument: { uri: "file:///a.py" } }],
    [focus, {}],
    [focus, {}],
  ]);
});
