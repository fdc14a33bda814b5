// The server's process and what is known about it: found, started, watched, started again.
// Knows the language client; decides nothing about suggestions and draws nothing.

import { homedir } from "node:os";
import { createInterface } from "node:readline";
import * as vscode from "vscode";
import {
  CloseAction,
  ErrorAction,
  ExecuteCommandRequest,
  type HandleWorkDoneProgressSignature,
  LanguageClient,
  type Middleware,
  RevealOutputChannelOn,
  State,
} from "vscode-languageclient/node";
import { Crashes } from "./crashes";
import { findServer, type NotFound } from "./find";
import { SELECTOR } from "./selector";
import { changed, type Options, optionsOf, SECTION } from "./settings";
import type { Progress, ServerStatus, Situation } from "./status";

const STOP_MS = 3000; // for the server to end by itself
const ASK_MS = 60_000; // for a command; a daemon that starts loads its model first
const CRASHES = { most: 5, withinMs: 180_000 };

interface Wanted {
  readonly path: string;
  readonly options: Options;
}

/** A command that could not be carried out: one line, for people. */
export class AskError extends Error {}

export class Server implements vscode.Disposable {
  private readonly news = new vscode.EventEmitter<Situation>();
  readonly onDidChange = this.news.event;
  private readonly starts = new vscode.EventEmitter<void>();
  readonly onDidStart = this.starts.event;
  private client: LanguageClient | undefined;
  private known: Situation = { process: "starting" };
  private wanted: Wanted = { path: "", options: {} };
  private work: Promise<void> = Promise.resolve();

  constructor(
    readonly log: vscode.LogOutputChannel,
    private readonly provideInline: (server: Server) => NonNullable<Middleware["provideInlineCompletionItems"]>,
  ) {}

  get situation(): Situation {
    return this.known;
  }

  /** What has been set differently since the server was started, by the server's names. */
  get changes(): string[] {
    const { path, options } = wantedNow();
    return [...(path === this.wanted.path ? [] : ["server.path"]), ...changed(this.wanted.options, options)];
  }

  dispose(): void {
    void this.stop();
    this.news.dispose();
    this.starts.dispose();
  }

  /** Also where none runs. One start or stop at a time, in the order in which they were asked for. */
  restart(): Promise<void> {
    return this.inTurn(async () => {
      await this.end();
      await this.begin();
    });
  }

  stop(): Promise<void> {
    return this.inTurn(() => this.end());
  }

  /** Has the server carry out a command. Throws AskError. */
  async ask<Answer>(command: string, ...words: unknown[]): Promise<Answer> {
    const client = this.client;
    if (client?.state !== State.Running) {
      throw new AskError(this.known.problem ?? "codestral-lsp is not running");
    }
    if (!commandsOf(client).includes(command)) {
      throw new AskError(`codestral-lsp ${this.known.version} does not know ${command}: install a newer one`);
    }
    const answer = client.sendRequest(ExecuteCommandRequest.type, { command, arguments: words });
    const tooLate = new AskError(`${command}: no answer within ${ASK_MS / 1000} s`);
    try {
      return (await within(answer, ASK_MS, tooLate)) as Answer;
    } catch (error) {
      throw error instanceof AskError ? error : new AskError(error instanceof Error ? error.message : String(error));
    }
  }

  /** Tells the server something if it runs. What it misses while it starts, it is told again by `onDidStart`. */
  tell(method: string, makeParams: (client: LanguageClient) => object): void {
    const client = this.client;
    if (client?.state === State.Running) {
      client
        .sendNotification(method, makeParams(client))
        .catch((error) => this.log.debug(`${method} was not sent: ${error}`));
    }
  }

  private inTurn(step: () => Promise<void>): Promise<void> {
    this.work = this.work.then(step).catch((error) => {
      this.log.error(String(error));
      this.know({ process: "failed", problem: error instanceof Error ? error.message : String(error) });
    });
    return this.work;
  }

  private async begin(): Promise<void> {
    this.wanted = wantedNow();
    if (!vscode.workspace.getConfiguration(SECTION).get<boolean>("enable", true)) {
      this.know({ process: "disabled" });
      return;
    }
    this.know({ process: "starting" });
    const found = await findServer({
      environment: process.env,
      home: homedir(),
      platform: process.platform,
      setting: this.wanted.path,
      trustedFolders: vscode.workspace.isTrusted ? localFolders() : [],
    });
    void vscode.commands.executeCommand("setContext", `${SECTION}.isFound`, "path" in found);
    if (!("path" in found)) {
      this.know(notFound(found));
      this.log.warn(found.problem);
      return;
    }
    this.log.info(`starting ${found.path} --stdio (${found.version})`);
    this.client = this.makeClient(found.path, found.version);
    await this.client.start();
  }

  private async end(): Promise<void> {
    const client = this.client;
    this.client = undefined;
    if (client !== undefined) {
      await client.dispose(STOP_MS).catch((error) => this.log.warn(`the server did not end by itself: ${error}`));
    }
  }

  private makeClient(path: string, version: string): LanguageClient {
    const crashes = new Crashes(CRASHES);
    const client = new LanguageClient(
      "codestralLsp",
      "codestral-lsp",
      // Not in the workspace's folder: it is told which that is, and must not find anything else there.
      { command: path, args: ["--stdio"], options: { cwd: homedir() } },
      {
        documentSelector: SELECTOR,
        outputChannel: this.log,
        revealOutputChannelOn: RevealOutputChannelOn.Never,
        // Not every program that is built on VS Code is known to the server by its name.
        initializationOptions: { ...this.wanted.options, status: true },
        progressOnInitialization: false,
        stdioOptions: { stdout: (input) => this.logLines(input), stderr: (input) => this.logLines(input) },
        errorHandler: {
          error: () => ({ action: ErrorAction.Continue, handled: true }),
          closed: () => ({
            action: crashes.add(Date.now()) ? CloseAction.DoNotRestart : CloseAction.Restart,
            handled: true,
          }),
        },
        middleware: {
          provideInlineCompletionItems: this.provideInline(this),
          handleWorkDoneProgress: (_token, value, next) => this.progressed(client, value, () => next(_token, value)),
        },
      },
    );
    client.onDidChangeState(({ newState }) => this.stateChanged(client, newState, version));
    client.onNotification("didChangeStatus", (server: ServerStatus) => {
      if (client === this.client) {
        this.know({ process: "running", version, server });
      }
    });
    client.onNotification("codestral/report", (report: unknown) => this.log.info(JSON.stringify(report)));
    return client;
  }

  private stateChanged(client: LanguageClient, state: State, version: string): void {
    if (client !== this.client) {
      return; // one that is being stopped
    }
    if (state === State.Starting) {
      this.know({ process: "starting", version });
    } else if (state === State.Running) {
      if (!sendsStatus(client)) {
        this.know({ ...this.known, process: "running", version });
      } // Others say in a moment themselves what they do.
      this.starts.fire();
    } else {
      this.know({ process: "failed", version, problem: "the program has ended; the log says why" });
    }
  }

  private progressed(
    client: LanguageClient,
    value: Parameters<HandleWorkDoneProgressSignature>[1],
    end: () => void,
  ): void {
    if (value.kind === "end") {
      end(); // The language client would show a second item beside ours for all before it.
    }
    if (client === this.client && this.known.server === undefined) {
      const { progress: _, ...rest } = this.known;
      this.know(value.kind === "end" ? rest : { ...rest, progress: progressOf(value, this.known.progress) });
    }
  }

  private logLines(input: NodeJS.ReadableStream): void {
    createInterface({ input }).on("line", (line) => {
      const level = / (DEBUG|WARNING|ERROR|CRITICAL) /.exec(line)?.[1];
      if (level === "ERROR" || level === "CRITICAL") {
        this.log.error(line);
      } else if (level === "WARNING") {
        this.log.warn(line);
      } else if (level === "DEBUG") {
        this.log.debug(line);
      } else {
        this.log.info(line);
      }
    });
  }

  private know(situation: Situation): void {
    this.known = situation;
    this.news.fire(situation);
  }
}

/** What a server would be started with now. A workspace that is not trusted may not name a program, whatever VS Code makes of its settings. */
function wantedNow(): Wanted {
  const configuration = vscode.workspace.getConfiguration(SECTION);
  const { isTrusted } = vscode.workspace;
  const path = isTrusted
    ? configuration.get<string>("server.path")
    : configuration.inspect<string>("server.path")?.globalValue;
  return { path: path ?? "", options: optionsOf(configuration, { isTrusted }) };
}

/** Servers that take commands of ours also tell their status. */
function sendsStatus(client: LanguageClient): boolean {
  return commandsOf(client).length > 0;
}

function commandsOf(client: LanguageClient): string[] {
  return client.initializeResult?.capabilities.executeCommandProvider?.commands ?? [];
}

function localFolders(): string[] {
  const folders = vscode.workspace.workspaceFolders ?? [];
  return folders.filter(({ uri }) => uri.scheme === "file").map(({ uri }) => uri.fsPath);
}

function notFound({ problem, isMissing }: NotFound): Situation {
  return { process: isMissing ? "missing" : "failed", problem };
}

function progressOf(value: { message?: string; percentage?: number }, before: Progress | undefined): Progress {
  const percentage = value.percentage ?? before?.percentage;
  const message = value.message ?? before?.message ?? "";
  return percentage === undefined ? { message } : { message, percentage };
}

async function within<Value>(value: Promise<Value>, ms: number, tooLate: Error): Promise<Value> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(tooLate), ms);
  });
  try {
    return await Promise.race([value, late]);
  } finally {
    clearTimeout(timer);
  }
}
