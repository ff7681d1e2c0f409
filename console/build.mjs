// Makes the console's page of its sources:
//
//     node console/build.mjs [OUTPUT_FOLDER]
//
// The bundle is committed, so that nobody needs Node to run a gateway; tests/unit/test_console_bundle.py proves that it is
// what the sources give.
import { copyFile, mkdir } from "node:fs/promises";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const output = process.argv[2] ?? join(here, "../services/gateway/console/static");

await mkdir(output, { recursive: true });
await build({
  // Paths in the output are relative to this folder, wherever it is built from.
  absWorkingDir: here,
  entryPoints: { console: "src/main.tsx" },
  outdir: output,
  bundle: true,
  minify: true,
  format: "esm",
  target: "es2022",
  jsx: "automatic",
  jsxImportSource: "preact",
  legalComments: "inline",
  charset: "utf8",
  logLevel: "warning",
});
for (const name of ["index.html", "icon.svg"]) {
  await copyFile(join(here, "src", name), join(output, name));
}
