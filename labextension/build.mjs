// Writes the extension as it travels in the job script: one file, and the package.json by which JupyterLab finds it.
// The latter holds a hash of the sources, so that a test can tell whether the built files are theirs.
import { createHash } from 'node:crypto';
import { mkdirSync, readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { buildSync } from 'esbuild';

const HERE = new URL('.', import.meta.url).pathname;
const OUT = `${HERE}../hpcspawner/programs/labextension`;

// The same words stand in tests/unit/test_labextension.py.
const SOURCES = [
  'build.mjs',
  'package-lock.json',
  'package.json',
  'tsconfig.json',
  ...readdirSync(`${HERE}src`).map(name => `src/${name}`)
].sort();

const sources = createHash('sha256');
for (const name of SOURCES) {
  sources.update(`${name}\n`).update(readFileSync(HERE + name));
}

const { outputFiles } = buildSync({
  entryPoints: [`${HERE}src/container.ts`],
  absWorkingDir: HERE,
  bundle: true,
  minify: true,
  format: 'iife',
  target: 'es2021',
  charset: 'ascii',
  legalComments: 'none',
  write: false
});
const built = outputFiles[0].contents;
// By its content: a browser may keep what an earlier version had under the same name.
const name = `static/remoteEntry.${createHash('sha256').update(built).digest('hex').slice(0, 16)}.js`;
const asked = JSON.parse(readFileSync(`${HERE}package.json`, 'utf-8'));
const found = {
  name: asked.name,
  version: asked.version,
  description: asked.description,
  license: asked.license,
  jupyterlab: { extension: true, _build: { load: name, extension: './extension' } },
  sources: sources.digest('hex')
};

mkdirSync(OUT, { recursive: true });
writeFileSync(`${OUT}/remoteEntry.js`, built);
writeFileSync(`${OUT}/package.json`, `${JSON.stringify(found, null, 2)}\n`);
console.log(`${OUT}/remoteEntry.js: ${built.length} bytes`);
