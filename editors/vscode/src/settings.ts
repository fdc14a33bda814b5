// What the user has set, as the server's initializationOptions.
// Knows the names of settings; knows neither VS Code nor what a value means: the server checks it and says what is wrong.

export const SECTION = "codestralLsp";

/** The server's settings, as they are called here. Its own names are the same in snake case. */
export const SERVER_KEYS = [
  "model",
  "precision",
  "contextMaxTokens",
  "idleMinutes",
  "memoryMb",
  "diskMb",
  "snapshots",
  "maxTokens",
  "maxLines",
  "budgetMs",
  "alternatives",
  "automatic",
  "delayMs",
  "delayLinesMs",
  "minConfidence",
  "disableIn",
  "languages",
  "exclude",
  "enable",
  "statistics",
  "reports",
] as const;

/** Those that a daemon which runs already does not take over. */
export const DAEMON_KEYS: readonly string[] = ["idleMinutes", "memoryMb", "diskMb", "snapshots"];

/** Those for which a workspace is not believed before its user has said that it may be. */
export const RESTRICTED_KEYS: readonly string[] = ["model"];

export type Options = Readonly<Record<string, unknown>>;

/** The part of VS Code's WorkspaceConfiguration that is needed. */
export interface Configuration {
  get(key: string): unknown;
  inspect(key: string): { globalValue?: unknown; workspaceValue?: unknown; workspaceFolderValue?: unknown } | undefined;
}

/**
 * Only what somebody has set: for the rest the server's defaults hold, and the environment's CODESTRAL_LSP_ variables.
 */
export function optionsOf(configuration: Configuration, { isTrusted }: { isTrusted: boolean }): Options {
  const options: Record<string, unknown> = {};
  for (const key of SERVER_KEYS) {
    const found = configuration.inspect(key);
    const isOwnOnly = !isTrusted && RESTRICTED_KEYS.includes(key);
    const isSet =
      found?.globalValue !== undefined ||
      (!isOwnOnly && (found?.workspaceValue !== undefined || found?.workspaceFolderValue !== undefined));
    if (isSet) {
      options[snakeCase(key)] = isOwnOnly ? found?.globalValue : configuration.get(key);
    }
  }
  return options;
}

export function snakeCase(key: string): string {
  return key.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
}

/** Which options differ, by the server's names. */
export function changed(before: Options, after: Options): string[] {
  const keys = new Set([...Object.keys(before), ...Object.keys(after)]);
  return [...keys].filter((key) => JSON.stringify(before[key]) !== JSON.stringify(after[key])).sort();
}

export function needsDaemon(keys: readonly string[]): boolean {
  return keys.some((key) => DAEMON_KEYS.map(snakeCase).includes(key));
}

/** Whether suggestions are on for a language, as the server decides it: its own entry, else that of all others, else on. */
export function isLanguageOn(languages: Readonly<Record<string, boolean>>, language: string): boolean {
  return languages[language] ?? languages["*"] ?? true;
}
