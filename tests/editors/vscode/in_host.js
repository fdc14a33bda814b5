// Runs inside the extension host, beside the extension: `run` throws for what is not as it should be. test_vscode.py starts it.

const assert = require("node:assert/strict");
const { join } = require("node:path");
const vscode = require("vscode");

const PATIENCE_MS = 45_000;
const KEYS = "    ledger.record_with";
const SUGGESTED = "drawal(";

exports.run = async () => {
  const extension = vscode.extensions.getExtension("codestral-lsp.codestral-lsp");
  assert.ok(extension, "the extension is not there");
  const { shown } = await extension.activate();
  await until(() => shown().text === "$(check) codestral", () => `ready, found ${JSON.stringify(shown())}`);

  await everyCommandIsThere(extension.packageJSON);
  const folder = vscode.workspace.workspaceFolders[0].uri.fsPath;
  const document = await vscode.workspace.openTextDocument(join(folder, "accounts", "fees.py"));
  await aSuggestionIsCommitted(document);
  const unnamed = { language: "python", content: document.getText() };
  await aSuggestionIsCommitted(await vscode.workspace.openTextDocument(unnamed));
};

async function everyCommandIsThere({ contributes }) {
  const there = new Set(await vscode.commands.getCommands(true));
  const missing = contributes.commands.map(({ command }) => command).filter((command) => !there.has(command));
  assert.deepEqual(missing, []);
}

async function aSuggestionIsCommitted(document) {
  const editor = await vscode.window.showTextDocument(document);
  const end = document.lineAt(document.lineCount - 1).range.end;
  editor.selection = new vscode.Selection(end, end);
  await vscode.commands.executeCommand("type", { text: `\n${KEYS}` });
  await vscode.commands.executeCommand("codestralLsp.trigger");
  const line = () => document.lineAt(document.lineCount - 1).text;
  const typed = line();
  assert.ok(typed.endsWith(KEYS.trim()), typed);
  await until(
    async () => {
      await vscode.commands.executeCommand("editor.action.inlineSuggest.commit");
      return document.getText().includes(`${typed}${SUGGESTED}`);
    },
    () => `${document.uri.scheme}: a suggestion after ${JSON.stringify(line())}`,
  );
}

async function until(isSo, what) {
  const deadline = Date.now() + PATIENCE_MS;
  while (!(await isSo())) {
    assert.ok(Date.now() < deadline, `waited in vain for ${what()}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
