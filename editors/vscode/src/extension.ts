// Puts the parts together, and starts the server anew when what it was started with has changed.

import * as vscode from "vscode";
import { registerCommands } from "./commands";
import { followFocus, provideInline } from "./inline";
import { Server } from "./server";
import { needsDaemon, SECTION } from "./settings";
import type { Shown } from "./status";
import { StatusBar, shownNow } from "./statusBar";

const SETTLE_MS = 300; // An object is typed into settings.json key by key.
const TOLD = "codestralLsp.toldHowToInstall";

/** What tests may look at. */
export interface Api {
  readonly shown: () => Shown;
}

export function activate(context: vscode.ExtensionContext): Api {
  const log = vscode.window.createOutputChannel("Codestral LSP", { log: true });
  const server = new Server(log, provideInline);
  context.subscriptions.push(
    log,
    server,
    new StatusBar(server),
    followFocus(server),
    registerCommands(server),
    followSettings(server),
    vscode.workspace.onDidGrantWorkspaceTrust(() => takeOver(server)),
    server.onDidChange(({ process, problem }) => {
      if (process === "missing" && problem !== undefined) {
        void explainOnce(context, problem);
      }
    }),
  );
  void server.restart();
  return { shown: () => shownNow(server.situation) };
}

/** Once for good: from then on the status bar says it. */
async function explainOnce(context: vscode.ExtensionContext, problem: string): Promise<void> {
  if (context.globalState.get<string>(TOLD) === problem) {
    return;
  }
  await context.globalState.update(TOLD, problem);
  const commands = new Map([
    ["How to install", "codestralLsp.howToInstall"],
    ["Choose the program…", "codestralLsp.chooseProgram"],
  ]);
  const message = `Codestral LSP shows what the program codestral-lsp suggests, and cannot find it: ${problem}`;
  const command = commands.get((await vscode.window.showInformationMessage(message, ...commands.keys())) ?? "");
  if (command !== undefined) {
    await vscode.commands.executeCommand(command);
  }
}

function followSettings(server: Server): vscode.Disposable {
  let timer: NodeJS.Timeout | undefined;
  const listener = vscode.workspace.onDidChangeConfiguration((event) => {
    if (event.affectsConfiguration(SECTION)) {
      clearTimeout(timer);
      timer = setTimeout(() => void takeOver(server), SETTLE_MS);
    }
  });
  return vscode.Disposable.from(listener, new vscode.Disposable(() => clearTimeout(timer)));
}

/** The server reads its settings when it starts, which takes half a second; the daemon, with what it has read, stays. */
async function takeOver(server: Server): Promise<void> {
  const keys = server.changes;
  if (keys.length === 0 && server.situation.process !== "missing") {
    return;
  }
  await server.restart();
  if (needsDaemon(keys)) {
    const chosen = await vscode.window.showInformationMessage(
      `${keys.join(", ")}: holds from the daemon's next start. It loads the model again and finds on disk what it has read.`,
      "Start it anew",
    );
    if (chosen !== undefined) {
      await vscode.commands.executeCommand("codestralLsp.restart");
    }
  }
}
