// Shows the job in the status bar of JupyterLab, and in Notebook, which has none, at the top of the page.
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import type { IStatusBar } from '@jupyterlab/statusbar';
import { Actions } from './actions';
import { Job } from './job';
import { Reminders } from './reminders';
import type { Jupyter } from './shared';
import { line, timeLeft } from './words';

const ID = 'hpcspawner:job';
const TICK_MS = 1_000;
// Behind what JupyterLab has at the left of its bar, and behind the title of a notebook.
const RANK = 1_000;
// As the status bar has it: below this width there is no room for all items. Those without a priority are hidden.
const NARROW_PX = 630;
const PRIORITY = 1;
const STYLE = `
.hpcspawner-job { display: flex; align-items: center; min-width: 0; overflow: hidden; }
#top-panel .hpcspawner-job { margin: 0 12px; }
.hpcspawner-job button {
  font: inherit; color: inherit; background: none; border: 0; padding: 0 4px; cursor: pointer;
  overflow: hidden; text-overflow: ellipsis; white-space: nowrap; font-variant-numeric: tabular-nums;
}
.hpcspawner-job button:hover { background: var(--jp-layout-color2); }
.hpcspawner-job button:focus-visible { outline: 1px solid var(--jp-brand-color1); outline-offset: -1px; }
.hpcspawner-job[data-ends=soon] button { background: var(--jp-warn-color1); color: #000; }
.hpcspawner-facts th { text-align: start; padding-inline-end: 16px; vertical-align: top; font-weight: 600; }
.hpcspawner-facts td { max-width: 40ch; }
`;

/** The plugin, made of the page's own modules. */
export function plugin(lab: Jupyter): JupyterFrontEndPlugin<void> {
  return {
    id: ID,
    description: 'Shows the batch job that the server runs in: time left, node, memory.',
    autoStart: true,
    optional: lab.statusbar ? [lab.statusbar.IStatusBar] : [],
    activate: (app, bar: IStatusBar | null) => void begin(lab, app, bar ?? null)
  };
}

async function begin(lab: Jupyter, app: JupyterFrontEnd, bar: IStatusBar | null): Promise<void> {
  const job = new Job(lab, () => draw());
  const actions = new Actions(lab, app, job);
  const reminders = new Reminders(lab, job, actions);
  const { widget, button } = item(lab, () => void actions.show());

  function draw(): void {
    const { facts, left } = job;
    if (facts) {
      const words = line(facts, left);
      const shown = (window.innerWidth <= NARROW_PX && timeLeft(left)) || words;
      if (button.textContent !== shown) {
        button.textContent = shown;
        button.title = `${words}\nClick for more.`;
      }
      const soon = left !== null && left <= Math.min(...facts.reminders_s, Infinity);
      widget.node.dataset['ends'] = facts.warned || (soon && facts.reminders_s.length) ? 'soon' : 'later';
    }
  }

  // A server that was started in some other way knows no job, and nothing is shown.
  if (!(await job.watch())) {
    return;
  }
  place(app, bar, widget);
  setInterval(() => {
    draw();
    reminders.look();
  }, TICK_MS);
}

function item(lab: Jupyter, pressed: () => void) {
  const style = document.createElement('style');
  style.textContent = STYLE;
  document.head.append(style);
  const widget = new lab.widgets.Widget();
  widget.id = 'hpcspawner-job';
  widget.addClass('hpcspawner-job');
  const button = document.createElement('button');
  button.type = 'button';
  button.addEventListener('click', pressed);
  widget.node.append(button);
  return { widget, button };
}

function place(app: JupyterFrontEnd, bar: IStatusBar | null, widget: ReturnType<typeof item>['widget']): void {
  if (bar) {
    bar.registerStatusItem(ID, { item: widget, align: 'left', rank: RANK, priority: PRIORITY, isActive: () => true });
  } else {
    app.shell.add(widget, 'top', { rank: RANK });
  }
}
