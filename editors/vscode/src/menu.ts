// The rows of the menu behind the status bar, as a function of what is known. Knows nothing of VS Code.

import type { Shown, Situation } from "./status";

export interface MenuRow {
  readonly label: string;
  readonly description?: string;
  readonly command: string;
  readonly arguments?: readonly unknown[];
}

export interface MenuFacts {
  readonly situation: Situation;
  readonly shown: Shown;
  /** Of the document that is looked at. */
  readonly language?: { readonly id: string; readonly isOn: boolean };
}

export function menuOf({ situation, shown, language }: MenuFacts): MenuRow[] {
  const rows: MenuRow[] = [];
  if (shown.action !== undefined) {
    const { title, command } = shown.action;
    rows.push({
      label: `$(lightbulb) ${title}`,
      description: shown.tooltip,
      command,
      arguments: shown.action.arguments ?? [],
    });
  }
  if (situation.process === "running") {
    rows.push({ label: "$(sparkle) Suggest here", command: "codestralLsp.trigger" });
    if (language !== undefined) {
      rows.push({
        label: `$(code) Turn ${language.isOn ? "off" : "on"} for ${language.id}`,
        command: "codestralLsp.toggleLanguage",
      });
    }
    const isPaused = situation.server?.codestral?.state === "paused";
    rows.push(
      isPaused
        ? { label: "$(debug-start) Resume", command: "codestralLsp.resume" }
        : { label: "$(debug-pause) Pause…", description: "in all windows", command: "codestralLsp.pause" },
      { label: "$(book) What has been read", command: "codestralLsp.whatIsRead" },
      { label: "$(trash) Clear what is kept…", command: "codestralLsp.clearCache" },
    );
  }
  rows.push(
    { label: "$(debug-restart) Restart", description: "the daemon too", command: "codestralLsp.restart" },
    { label: "$(output) Log", command: "codestralLsp.showLog" },
    { label: "$(gear) Settings", command: "codestralLsp.openSettings" },
  );
  if (situation.process === "missing" || situation.process === "failed") {
    rows.push({ label: "$(folder-opened) Choose the program…", command: "codestralLsp.chooseProgram" });
  }
  return rows.filter((row, place) => rows.findIndex(({ command }) => command === row.command) === place);
}
