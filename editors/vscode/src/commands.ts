// What the commands do: they ask the server, or VS Code, and show the answer.

import { homedir } from "node:os";
import * as vscode from "vscode";
import { menuOf } from "./menu";
import { type Read, reportOf, rowsOf } from "./reading";
import { SELECTOR } from "./selector";
import { AskError, type Server } from "./server";
import { isLanguageOn, SECTION } from "./settings";
import { shownNow } from "./statusBar";

const EXTENSION = "codestral-lsp.codestral-lsp";

export function registerCommands(server: Server): vscode.Disposable {
  const run = (command: string) => () => vscode.commands.executeCommand(command);
  const commands: Record<string, () => unknown> = {
    menu: () => showMenu(server),
    trigger: run("editor.action.inlineSuggest.trigger"),
    acceptWord: run("editor.action.inlineSuggest.acceptNextWord"),
    acceptLine: run("editor.action.inlineSuggest.acceptNextLine"),
    toggleLanguage,
    pause: () => pause(server),
    resume: () => server.ask("codestral.resume"),
    whatIsRead: () => showWhatIsRead(server),
    clearCache: () => clearCache(server),
    restart: () => restart(server),
    showLog: () => server.log.show(),
    showDaemonLog: () => showDaemonLog(server),
    openSettings: () => vscode.commands.executeCommand("workbench.action.openSettings", `@ext:${EXTENSION}`),
    howToInstall: () => vscode.commands.executeCommand("workbench.action.openWalkthrough", `${EXTENSION}#start`, false),
    chooseProgram,
  };
  return vscode.Disposable.from(
    ...Object.entries(commands).map(([name, act]) =>
      vscode.commands.registerCommand(`${SECTION}.${name}`, () => explained(act)),
    ),
  );
}

/** What a command could not do is one message, and no fault of the extension. */
async function explained(act: () => unknown): Promise<unknown> {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof AskError)) {
      throw error;
    }
    void vscode.window.showWarningMessage(error.message);
    return undefined;
  }
}

async function showMenu(server: Server): Promise<void> {
  const document = vscode.window.activeTextEditor?.document;
  const id = document !== undefined && vscode.languages.match(SELECTOR, document) > 0 ? document.languageId : undefined;
  const facts = { situation: server.situation, shown: shownNow(server.situation) };
  const rows = menuOf(id === undefined ? facts : { ...facts, language: { id, isOn: isLanguageOn(languages(), id) } });
  const chosen = await vscode.window.showQuickPick(rows, { title: `Codestral LSP: ${facts.shown.tooltip}` });
  if (chosen !== undefined) {
    await vscode.commands.executeCommand(chosen.command, ...(chosen.arguments ?? []));
  }
}

function languages(): Record<string, boolean> {
  return vscode.workspace.getConfiguration(SECTION).get<Record<string, boolean>>("languages", {});
}

/** Where the language has been set for this workspace it is changed there, else for all. The server starts anew with it. */
async function toggleLanguage(): Promise<void> {
  const id = vscode.window.activeTextEditor?.document.languageId;
  if (id === undefined) {
    throw new AskError("no document is open whose language could be turned on or off");
  }
  const configuration = vscode.workspace.getConfiguration(SECTION);
  const found = configuration.inspect<Record<string, boolean>>("languages");
  const isOfWorkspace = found?.workspaceValue?.[id] !== undefined;
  const before = (isOfWorkspace ? found?.workspaceValue : found?.globalValue) ?? {};
  const target = isOfWorkspace ? vscode.ConfigurationTarget.Workspace : vscode.ConfigurationTarget.Global;
  await configuration.update("languages", { ...before, [id]: !isLanguageOn(languages(), id) }, target);
}

async function pause(server: Server): Promise<void> {
  const rows = [
    { label: "For 15 minutes", words: [15] },
    { label: "For an hour", words: [60] },
    { label: "Until I resume", words: [] },
  ];
  const chosen = await vscode.window.showQuickPick(rows, { title: "Pause suggestions in all windows" });
  if (chosen !== undefined) {
    await server.ask("codestral.pause", ...chosen.words);
  }
}

/** Ends the daemon as well, where the server can still be asked to. */
async function restart(server: Server): Promise<void> {
  try {
    await server.ask("codestral.restart");
  } catch (error) {
    server.log.info(`restarting without its help: ${error instanceof Error ? error.message : error}`);
  }
  await server.restart();
}

async function clearCache(server: Server): Promise<void> {
  const rows = [
    { label: "Of this workspace", description: "in memory and on disk", word: "workspace" },
    { label: "Of all workspaces", description: "in memory and on disk", word: "all" },
  ];
  const title = "Clear what the model remembers; it is read again when it is needed";
  const chosen = await vscode.window.showQuickPick(rows, { title });
  if (chosen !== undefined) {
    const { message } = await server.ask<{ message: string }>("codestral.clearCache", chosen.word);
    void vscode.window.showInformationMessage(message);
  }
}

async function showDaemonLog(server: Server): Promise<void> {
  const { daemon } = await server.ask<{ daemon: string }>("codestral.log");
  await vscode.window.showTextDocument(vscode.Uri.file(daemon), { preview: true });
}

async function showWhatIsRead(server: Server): Promise<void> {
  const read = await server.ask<Read>("codestral.whatIsRead");
  const rows = rowsOf(read).map((row) => ({
    ...row,
    kind: row.kind === "heading" ? vscode.QuickPickItemKind.Separator : vscode.QuickPickItemKind.Default,
  }));
  const asText = { label: "$(markdown) Show as a text", description: "", kind: vscode.QuickPickItemKind.Default };
  const chosen = await vscode.window.showQuickPick([asText, ...rows], {
    title: "What has been read",
    placeHolder: "Type a path to see whether it was read",
  });
  if (chosen === asText) {
    const document = await vscode.workspace.openTextDocument({ language: "markdown", content: reportOf(read) });
    await vscode.window.showTextDocument(document, { preview: true });
  } else if (chosen !== undefined && "path" in chosen && typeof chosen.path === "string") {
    await vscode.window.showTextDocument(vscode.Uri.file(chosen.path), { preview: true });
  }
}

async function chooseProgram(): Promise<void> {
  const [chosen] =
    (await vscode.window.showOpenDialog({
      title: "The program codestral-lsp",
      openLabel: "Use it",
      defaultUri: vscode.Uri.file(homedir()),
    })) ?? [];
  if (chosen !== undefined) {
    const configuration = vscode.workspace.getConfiguration(SECTION);
    await configuration.update("server.path", chosen.fsPath, vscode.ConfigurationTarget.Global);
  }
}
