// What JupyterLab and Notebook load: a container in the sense of module federation, which they ask for one module.
//
// It is written by hand and not by @jupyterlab/builder for two reasons. It travels in each job script, so it must be
// small. And it takes of the page's modules those that are there, where the builder's fails as a whole if one is missing.
import { plugin } from './plugin';
import { type Scope, jupyter, use } from './shared';

interface Container {
  init: (scope: Scope) => void;
  get: (module: string) => Promise<() => unknown>;
}

declare global {
  interface Window {
    _JUPYTERLAB?: Record<string, Container>;
  }
}

window._JUPYTERLAB = window._JUPYTERLAB ?? {};
window._JUPYTERLAB['hpcspawner'] = {
  init: use,
  get: async module => {
    if (module !== './extension') {
      throw new Error(`hpcspawner has no module ${module}`);
    }
    const made = { __esModule: true, default: plugin(await jupyter()) };
    return () => made;
  }
};
