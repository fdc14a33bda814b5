import { expect, test } from "vitest";
import { type Read, reportOf, rowsOf, summaryOf, type Workspace } from "../src/reading";

const CLUB: Workspace = {
  root: "/home/me/club",
  stage: "ready",
  tokens: 12_400,
  done: 12_400,
  current: 1,
  n_documents: 2,
  documents: [{ path: "club/fees.py", tokens: 400 }, { path: "a|b.py", chars: 1500 }, { path: "c.py" }],
  left_out: ["data.csv"],
};
const READ: Read = { workspaces: [CLUB] };

test.each<[Partial<Workspace>, string]>([
  [{}, "ready: 2 files, 12k tokens, up to date"],
  [{ stage: "reading", done: 6200 }, "reading: 2 files, 6k of 12k tokens, up to date"],
  [{ current: 0.999, n_documents: 1 }, "ready: 1 file, 12k tokens, 99 % current"],
])("%o is summed up as %s", (facts, expected) => {
  expect(summaryOf({ ...CLUB, ...facts })).toBe(expected);
});

test("the list has files, then what was left out", () => {
  expect(rowsOf(READ).map(({ kind, label, description, path }) => [kind, label, description, path])).toEqual([
    ["heading", "club", "", undefined],
    ["remark", "ready: 2 files, 12k tokens, up to date", "/home/me/club", undefined],
    ["file", "club/fees.py", "400 tokens", "/home/me/club/club/fees.py"],
    ["file", "a|b.py", "2k characters", "/home/me/club/a|b.py"],
    ["file", "c.py", "read", "/home/me/club/c.py"],
    ["heading", "left out", "", undefined],
    ["file", "data.csv", "not read", "/home/me/club/data.csv"],
  ]);
});

test("without a repository there is one remark", () => {
  expect(rowsOf({ workspaces: [] })).toMatchObject([{ kind: "remark", label: "No repository is open" }]);
  expect(reportOf({ workspaces: [] })).toContain("No repository is open");
});

test("the text is a table of the files", () => {
  expect(reportOf(READ)).toBe(
    "# What has been read\n\n## /home/me/club\n\nready: 2 files, 12k tokens, up to date\n\n" +
      "| file | read |\n|---|---|\n| club/fees.py | 400 tokens |\n| a\\|b.py | 2k characters |\n| c.py | read |\n\nLeft out:\n\n- data.csv\n",
  );
});
