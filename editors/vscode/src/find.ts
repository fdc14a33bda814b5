// Where the program is, and whether it is the program.
// Knows folders and processes; knows nothing of VS Code.

import { execFile } from "node:child_process";
import { constants } from "node:fs";
import { access, stat } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";

export const PROGRAM = "codestral-lsp";
const VERSION_TIMEOUT_MS = 30_000; // Python from a cold disk beside other programs that are starting

export interface Surroundings {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly home: string;
  readonly platform: NodeJS.Platform;
  /** The setting server.path; empty where there is none. */
  readonly setting: string;
  /** Folders that may name the program: none while the workspace is not trusted. */
  readonly trustedFolders: readonly string[];
}

export type Found = { readonly path: string; readonly version: string };
export type NotFound = { readonly problem: string; readonly isMissing: boolean };

/** The program that will be started, or one line that says why there is none. */
export async function findServer(where: Surroundings): Promise<Found | NotFound> {
  if (where.platform === "win32") {
    return { problem: "the program runs on Linux and macOS; on Windows open the folder in WSL", isMissing: true };
  }
  const named = where.setting.trim();
  if (named !== "") {
    return await checkNamed(named, where);
  }
  let first: NotFound | undefined;
  for (const path of candidates(where)) {
    if (await isProgram(path)) {
      const found = await versionOf(path, where);
      if ("version" in found) {
        return found;
      }
      first ??= found;
    }
  }
  return first ?? { problem: `${PROGRAM} is neither on PATH nor in the usual places`, isMissing: true };
}

/** All places, the likeliest first, each once. */
export function candidates(where: Surroundings): string[] {
  const { environment, home } = where;
  // A relative entry would let whatever folder is open name the program.
  const onPath = (environment.PATH ?? "").split(delimiter).filter(isAbsolute);
  const folders = [
    ...onPath,
    environment.UV_TOOL_BIN_DIR,
    environment.PIPX_BIN_DIR,
    environment.XDG_BIN_HOME,
    join(home, ".local", "bin"),
    ...[environment.UV_TOOL_DIR, join(environment.XDG_DATA_HOME ?? join(home, ".local", "share"), "uv", "tools")]
      .filter((folder) => folder !== undefined)
      .map((folder) => join(folder, PROGRAM, "bin")),
    ...[
      environment.PIPX_HOME,
      join(home, ".local", "share", "pipx"),
      join(home, ".local", "pipx"),
      join(home, "Library", "Application Support", "pipx"),
    ]
      .filter((folder) => folder !== undefined)
      .map((folder) => join(folder, "venvs", PROGRAM, "bin")),
    "/opt/homebrew/bin",
    "/usr/local/bin",
    ...where.trustedFolders.flatMap((folder) => [join(folder, ".venv", "bin"), join(folder, "venv", "bin")]),
  ];
  const paths = folders.filter((folder) => folder !== undefined && isAbsolute(folder));
  return [...new Set(paths.map((folder) => join(folder as string, PROGRAM)))];
}

/** `~` and `${workspaceFolder}` replaced. */
export function expanded(path: string, where: Surroundings): string {
  const folder = where.trustedFolders[0];
  const inFolder = folder === undefined ? path : path.replace(/\$\{workspaceFolder\}/g, () => folder);
  return inFolder.replace(/^~(?=$|\/)/, where.home);
}

async function checkNamed(named: string, where: Surroundings): Promise<Found | NotFound> {
  const path = expanded(named, where);
  const setting = `codestralLsp.server.path: ${named}`;
  if (!isAbsolute(path)) {
    return { problem: `${setting}: expected an absolute path`, isMissing: true };
  }
  if (!(await isProgram(path))) {
    return { problem: `${setting}: no program is there`, isMissing: true };
  }
  return await versionOf(path, where);
}

async function isProgram(path: string): Promise<boolean> {
  try {
    await access(path, constants.X_OK);
    return (await stat(path)).isFile();
  } catch {
    return false;
  }
}

function versionOf(path: string, where: Surroundings): Promise<Found | NotFound> {
  return new Promise((resolve) => {
    // Not in the workspace's folder, which may hold modules of any name.
    execFile(path, ["--version"], { cwd: where.home, timeout: VERSION_TIMEOUT_MS }, (error, stdout, stderr) => {
      const version = /^codestral-lsp (\d\S*)/m.exec(stdout)?.[1];
      if (version !== undefined && error === null) {
        resolve({ path, version });
        return;
      }
      const said = `${stdout}\n${stderr}`.trim().split("\n").at(-1)?.trim() || (error?.message ?? "nothing");
      resolve({ problem: `${path} --version: expected ${PROGRAM} and a version, found: ${said}`, isMissing: false });
    });
  });
}
