// Bundles the extension into out/extension.js, and the licences of what is in it into out/NOTICES.txt.

import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { build } from "esbuild";

const isMinified = process.argv.includes("--minify");
const { metafile } = await build({
  entryPoints: ["src/extension.ts"],
  outfile: "out/extension.js",
  bundle: true,
  platform: "node",
  format: "cjs",
  target: "node20",
  external: ["vscode"],
  minify: isMinified,
  sourcemap: isMinified ? false : "linked",
  legalComments: "none",
  metafile: true,
});

const packages = new Set(Object.keys(metafile.inputs).map(packageOf).filter(Boolean));
writeFileSync("out/NOTICES.txt", [...packages].sort().map(noticeOf).join("\n\n"));
const [output] = Object.values(metafile.outputs).filter(({ entryPoint }) => entryPoint !== undefined);
console.log(`out/extension.js: ${Math.round(output.bytes / 1024)} KB, ${packages.size} packages of others`);

/** node_modules/@scope/name/lib/file.js -> node_modules/@scope/name, the innermost. */
function packageOf(path) {
  return /^(.*node_modules\/(?:@[^/]+\/)?[^/]+)\//.exec(path)?.[1];
}

function noticeOf(folder) {
  const { name, version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  if (file === undefined) {
    throw new Error(`${folder}: expected a licence file`);
  }
  const text = readFileSync(join(folder, file), "utf8").trim();
  return `${name} ${version} (${license})\n${"-".repeat(72)}\n${text}`;
}
