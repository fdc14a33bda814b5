// Draws what `status` says into VS Code's status bar. A click opens the menu.

import * as vscode from "vscode";
import type { Server } from "./server";
import { type Shown, type Situation, shownOf } from "./status";

export class StatusBar implements vscode.Disposable {
  private readonly item = vscode.window.createStatusBarItem("codestralLsp", vscode.StatusBarAlignment.Right, 100);
  private readonly parts: vscode.Disposable;

  constructor(server: Server) {
    this.item.name = "Codestral LSP";
    this.item.command = "codestralLsp.menu";
    const draw = (): void => this.draw(shownNow(server.situation));
    this.parts = vscode.Disposable.from(
      this.item,
      server.onDidChange(draw),
      vscode.workspace.onDidChangeConfiguration((event) => {
        if (event.affectsConfiguration("editor.inlineSuggest.enabled")) {
          draw();
        }
      }),
    );
    draw();
    this.item.show();
  }

  dispose(): void {
    this.parts.dispose();
  }

  private draw({ text, tooltip, level, action }: Shown): void {
    this.item.text = text;
    this.item.tooltip = action === undefined ? tooltip : `${tooltip}\n\nClick for: ${action.title}`;
    this.item.backgroundColor =
      level === "normal" ? undefined : new vscode.ThemeColor(`statusBarItem.${level}Background`);
  }
}

export function shownNow(situation: Situation): Shown {
  const isEditorOff = !vscode.workspace.getConfiguration("editor").get<boolean>("inlineSuggest.enabled", true);
  return shownOf({ ...situation, isEditorOff });
}
