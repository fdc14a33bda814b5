// What the status bar says, as a function of what is known.
// Knows the server's `didChangeStatus`, and what can be told without it; knows nothing of VS Code.

/** The parameters of `didChangeStatus`: the shape of the Copilot language server's, and ours beside it. */
export interface ServerStatus {
  readonly busy: boolean;
  readonly message: string;
  readonly kind: "Normal" | "Error" | "Warning" | "Inactive";
  readonly command?: Action;
  readonly codestral?: {
    readonly state: "starting" | "loading" | "reading" | "ready" | "thinking" | "off" | "paused" | "error";
    readonly percent?: number;
    readonly done?: number;
    readonly total?: number;
    readonly reason?: string;
    readonly uri?: string;
  };
}

export interface Action {
  readonly title: string;
  readonly command: string;
  readonly arguments?: readonly unknown[];
}

/** A value of `$/progress`, from servers that send no status. */
export interface Progress {
  readonly message: string;
  readonly percentage?: number;
}

export interface Situation {
  /** Of the server's process: switched off by a setting, not found, starting, running, or given up. */
  readonly process: "disabled" | "missing" | "starting" | "running" | "failed";
  /** Why it is missing or failed, in one line. */
  readonly problem?: string;
  readonly version?: string;
  readonly server?: ServerStatus;
  readonly progress?: Progress;
  /** VS Code itself shows no inline suggestions: its own setting. */
  readonly isEditorOff?: boolean;
}

export interface Shown {
  readonly text: string;
  readonly tooltip: string;
  readonly level: "normal" | "warning" | "error";
  /** What to do about it, offered before everything else. */
  readonly action?: Action;
}

const NAME = "codestral";
const LONGEST_REASON = 32;
const HOW_TO_INSTALL: Action = { title: "How to install", command: "codestralLsp.howToInstall" };
const RESTART: Action = { title: "Restart", command: "codestralLsp.restart" };
const EDITOR_SETTING = "editor.inlineSuggest.enabled";
const SHOW_SETTING: Action = {
  title: "Open the setting",
  command: "workbench.action.openSettings",
  arguments: [EDITOR_SETTING],
};

const OWN_COMMANDS: Readonly<Record<string, string>> = {
  "codestral.log": "codestralLsp.showDaemonLog",
  "codestral.restart": "codestralLsp.restart",
  "codestral.resume": "codestralLsp.resume",
};

export function shownOf(situation: Situation): Shown {
  const problem = situation.problem ?? "";
  if (situation.isEditorOff && situation.process === "running") {
    const tooltip = `VS Code's own setting ${EDITOR_SETTING} is off, so no suggestion is shown`;
    return { text: `$(circle-slash) ${NAME}: off in VS Code`, tooltip, level: "normal", action: SHOW_SETTING };
  }
  switch (situation.process) {
    case "disabled":
      return { text: `$(circle-slash) ${NAME}: off`, tooltip: "Switched off by codestralLsp.enable", level: "normal" };
    case "missing":
      return {
        text: `$(warning) ${NAME}: not installed`,
        tooltip: problem,
        level: "warning",
        action: HOW_TO_INSTALL,
      };
    case "failed":
      return { text: `$(error) ${NAME}: stopped`, tooltip: problem, level: "error", action: RESTART };
    case "starting":
      return { text: `$(loading~spin) ${NAME}: starting`, tooltip: "The program is starting", level: "normal" };
    case "running":
      return situation.server === undefined ? ofProgress(situation) : ofServer(situation.server);
  }
}

function ofProgress({ progress, version }: Situation): Shown {
  if (progress === undefined) {
    return { text: `$(check) ${NAME}`, tooltip: `codestral-lsp ${version ?? ""} is running`.trim(), level: "normal" };
  }
  const percent = progress.percentage === undefined ? "" : ` ${progress.percentage} %`;
  return { text: `$(sync~spin) ${NAME}: reading${percent}`, tooltip: progress.message, level: "normal" };
}

function ofServer(status: ServerStatus): Shown {
  const { text, tooltip, level } = ofState(status);
  const shown = { text, tooltip, level };
  return status.command === undefined ? shown : { ...shown, action: ownAction(status.command) };
}

/** Of the server's commands those that this extension has too are better asked for here: it shows what they answer. */
function ownAction(action: Action): Action {
  const command = OWN_COMMANDS[action.command];
  return command === undefined ? action : { title: action.title, command };
}

function ofState(status: ServerStatus): { text: string; tooltip: string; level: Shown["level"] } {
  const state = status.codestral;
  const message = status.message;
  switch (state?.state) {
    case "starting":
      return { text: `$(loading~spin) ${NAME}: starting`, tooltip: message, level: "normal" };
    case "loading":
      return { text: `$(loading~spin) ${NAME}: loading${percentOf(state.percent)}`, tooltip: message, level: "normal" };
    case "reading":
      return { text: `$(sync~spin) ${NAME}: reading ${partOf(state)}`.trim(), tooltip: message, level: "normal" };
    case "thinking":
      return { text: `$(loading~spin) ${NAME}`, tooltip: message, level: "normal" };
    case "paused":
      return { text: `$(debug-pause) ${NAME}: paused`, tooltip: message, level: "normal" };
    case "off":
      return { text: `$(circle-slash) ${NAME}: ${brief(state.reason ?? "off")}`, tooltip: message, level: "normal" };
    case "error":
      return status.kind === "Warning"
        ? { text: `$(warning) ${NAME}: ${brief(message)}`, tooltip: message, level: "warning" }
        : { text: `$(error) ${NAME}: ${brief(message)}`, tooltip: message, level: "error" };
    case "ready":
      return { text: `$(check) ${NAME}`, tooltip: message, level: "normal" };
    default:
      return ofKind(status);
  }
}

/** A state that is newer than this extension, or a server that sends none. */
function ofKind({ kind, busy, message }: ServerStatus): { text: string; tooltip: string; level: Shown["level"] } {
  const icon = {
    Normal: busy ? "loading~spin" : "check",
    Error: "error",
    Warning: "warning",
    Inactive: "circle-slash",
  };
  const level = { Normal: "normal", Error: "error", Warning: "warning", Inactive: "normal" } as const;
  return { text: `$(${icon[kind]}) ${NAME}`, tooltip: message, level: level[kind] };
}

function percentOf(percent: number | undefined): string {
  return percent === undefined ? "" : ` ${Math.floor(percent)} %`;
}

function partOf({ done, total, percent }: { done?: number; total?: number; percent?: number }): string {
  return total ? `${counted(done ?? 0)} of ${counted(total)}` : percentOf(percent).trim();
}

/** A number of tokens with three digits at most: 950, 12k, 1.2M. */
export function counted(n: number): string {
  if (n < 1000) {
    return `${n}`;
  }
  return n < 999_500 ? `${Math.round(n / 1000)}k` : `${(n / 1e6).toFixed(1)}M`;
}

function brief(text: string): string {
  return text.length <= LONGEST_REASON ? text : `${text.slice(0, LONGEST_REASON - 1)}…`;
}
