// The page's own modules. Tokens are compared by identity, so an extension must use these and bring none.
import type * as Application from '@jupyterlab/application';
import type * as Apputils from '@jupyterlab/apputils';
import type * as Coreutils from '@jupyterlab/coreutils';
import type * as Services from '@jupyterlab/services';
import type * as Statusbar from '@jupyterlab/statusbar';
import type * as Widgets from '@lumino/widgets';

interface Version {
  get: () => unknown;
  loaded?: unknown;
}

/** The share scope of module federation: by the name of a module and its version, how to get it. */
export type Scope = Record<string, Record<string, Version>>;

/** What this extension uses of the page. `statusbar` is null where the page has no such module. */
export interface Jupyter {
  application: typeof Application;
  apputils: typeof Apputils;
  coreutils: typeof Coreutils;
  services: typeof Services;
  statusbar: typeof Statusbar | null;
  widgets: typeof Widgets;
}

let scope: Scope = {};

/** Note what the page shares. */
export function use(given: Scope): void {
  scope = given;
}

async function found(name: string): Promise<unknown> {
  const versions = Object.values(scope[name] ?? {});
  // The page's own is loaded; another one would be some extension's.
  const version = versions.find(one => one.loaded) ?? versions[0];
  return version ? ((await version.get()) as () => unknown)() : null;
}

async function needed<T>(name: string): Promise<T> {
  const module = await found(name);
  if (!module) {
    throw new Error(`hpcspawner: this page has no ${name}`);
  }
  return module as T;
}

/** The page's modules. Rejects where one is missing that this extension can't do without. */
export async function jupyter(): Promise<Jupyter> {
  return {
    application: await needed('@jupyterlab/application'),
    apputils: await needed('@jupyterlab/apputils'),
    coreutils: await needed('@jupyterlab/coreutils'),
    services: await needed('@jupyterlab/services'),
    statusbar: (await found('@jupyterlab/statusbar')) as typeof Statusbar | null,
    widgets: await needed('@lumino/widgets')
  };
}
