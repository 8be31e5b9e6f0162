// Checks the types and makes the bundle: ../dist/index.html, and what it refers to under ../dist/assets, named by content.
// `make console` runs it. The packages are in .tools/console.

import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

import { typesOf } from "./openapi.mjs";

const web = dirname(fileURLToPath(import.meta.url));
const root = join(web, "../../..");
const packages = join(root, ".tools/console/node_modules");
const dist = join(web, "../dist");
const base = "/console/assets/";

if (!existsSync(packages)) {
  console.error("console: .tools/console is missing: `make setup` makes it");
  process.exit(1);
}
const { build } = createRequire(join(packages, "x"))("esbuild");

writeFileSync(join(web, "src/openapi.ts"), typesOf(JSON.parse(readFileSync(join(root, "docs/openapi.json"), "utf8"))));
try {
  execFileSync(join(packages, ".bin/tsc"), ["--project", web], { stdio: "inherit" });
} catch {
  process.exit(1);
}

const made = await build({
  entryPoints: { console: join(web, "src/main.tsx") },
  outdir: "/",
  entryNames: "[name]-[hash]",
  bundle: true,
  minify: true,
  format: "esm",
  target: ["es2022"],
  legalComments: "none",
  write: false,
  logLevel: "warning",
});
const files = made.outputFiles.map(({ path, contents }) => [path.slice(1), contents]);
const { dependencies } = JSON.parse(readFileSync(join(web, "package.json"), "utf8"));
const licences = Object.entries(dependencies).map(([name, version]) => {
  return `${name} ${version}\n\n${readFileSync(join(packages, name, "LICENSE"), "utf8")}`;
});
for (const [name, ending, contents] of [
  ["icon", "svg", readFileSync(join(web, "icon.svg"))],
  ["licences", "txt", Buffer.from(licences.join("\n\n"))],
]) {
  const hash = createHash("sha256").update(contents).digest("hex").slice(0, 8).toUpperCase();
  files.push([`${name}-${hash}.${ending}`, contents]);
}

// Whoever is building the crate meanwhile finds the old bundle or the new one.
const next = `${dist}.next`;
rmSync(next, { recursive: true, force: true });
mkdirSync(join(next, "assets"), { recursive: true });
files.forEach(([name, contents]) => writeFileSync(join(next, "assets", name), contents));
const named = (ending) => base + files.find(([name]) => name.endsWith(ending))[0];
const page = readFileSync(join(web, "index.html"), "utf8")
  .replace("{script}", named(".js"))
  .replace("{style}", named(".css"))
  .replace("{icon}", named(".svg"))
  .replace("{licences}", named(".txt"));
writeFileSync(join(next, "index.html"), page);
rmSync(dist, { recursive: true, force: true });
renameSync(next, dist);
files.forEach(([name, contents]) => console.log(`console: ${name} ${(contents.length / 1024).toFixed(1)} KiB`));
