// What the server says that it has read, as rows of a list and as a text.
// Knows the answer of `codestral.whatIsRead`; knows nothing of VS Code.

import { counted } from "./status";

export interface Read {
  readonly workspaces: readonly Workspace[];
}

export interface Workspace {
  readonly root: string;
  readonly stage: string;
  readonly tokens: number;
  readonly done: number;
  /** The share of the text that is known as it is now, from 0 to 1. */
  readonly current: number;
  readonly n_documents: number;
  readonly documents: readonly Document[];
  readonly left_out: readonly string[];
}

/** How large a file is, in whichever unit the server knows. */
interface Document {
  readonly path: string;
  readonly tokens?: number;
  readonly chars?: number;
}

/** A line of the list: a heading, a file that can be opened, or a remark. */
export interface Row {
  readonly kind: "heading" | "file" | "remark";
  readonly label: string;
  readonly description: string;
  /** Of a file: its absolute path. */
  readonly path?: string;
}

export function rowsOf(read: Read): Row[] {
  if (read.workspaces.length === 0) {
    return [{ kind: "remark", label: "No repository is open", description: "the open file is all that is read" }];
  }
  return read.workspaces.flatMap((workspace) => [
    { kind: "heading", label: nameOf(workspace.root), description: "" },
    { kind: "remark", label: summaryOf(workspace), description: workspace.root },
    ...workspace.documents.map((document) => fileRow(workspace.root, document.path, sizeOf(document))),
    ...(workspace.left_out.length === 0 ? [] : [{ kind: "heading" as const, label: "left out", description: "" }]),
    ...workspace.left_out.map((path) => fileRow(workspace.root, path, "not read")),
  ]);
}

/** The same for people who want to keep or send it: Markdown. */
export function reportOf(read: Read): string {
  const parts = read.workspaces.map((workspace) => {
    const files = workspace.documents.map((document) => `| ${cell(document.path)} | ${sizeOf(document)} |`);
    const table = files.length === 0 ? [] : ["", "| file | read |", "|---|---|", ...files];
    const left = workspace.left_out.length === 0 ? [] : ["", "Left out:", ""];
    const paths = workspace.left_out.map((path) => `- ${path}`);
    return [`## ${workspace.root}`, "", summaryOf(workspace), ...table, ...left, ...paths].join("\n");
  });
  const body = parts.length === 0 ? ["No repository is open: the open file is all that is read."] : parts;
  return `${["# What has been read", ...body].join("\n\n")}\n`;
}

export function summaryOf(workspace: Workspace): string {
  const n = workspace.n_documents;
  const files = `${n} file${n === 1 ? "" : "s"}`;
  const tokens =
    workspace.done < workspace.tokens
      ? `${counted(workspace.done)} of ${counted(workspace.tokens)} tokens`
      : `${counted(workspace.tokens)} tokens`;
  // Rounded down: 100 says that nothing is missing.
  const current = workspace.current >= 1 ? "up to date" : `${Math.floor(100 * workspace.current)} % current`;
  return `${workspace.stage}: ${files}, ${tokens}, ${current}`;
}

function sizeOf({ tokens, chars }: Document): string {
  if (tokens !== undefined) {
    return `${counted(tokens)} tokens`;
  }
  return chars === undefined ? "read" : `${counted(chars)} characters`;
}

function fileRow(root: string, path: string, description: string): Row {
  return { kind: "file", label: path, description, path: path.startsWith("/") ? path : `${root}/${path}` };
}

function nameOf(root: string): string {
  return root.split("/").filter(Boolean).at(-1) ?? root;
}

function cell(path: string): string {
  return path.replaceAll("|", "\\|");
}
