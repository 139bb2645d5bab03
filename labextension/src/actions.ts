// What a user can do about the job: save, renew, stop.
import type { JupyterFrontEnd } from '@jupyterlab/application';
import type { Job } from './job';
import type { Jupyter } from './shared';
import { renewal, rows } from './words';

const SAVE_ALL = ['docmanager:save-all', 'docmanager:save'];

/** The actions of one page. */
export class Actions {
  constructor(
    private readonly lab: Jupyter,
    private readonly app: JupyterFrontEnd,
    private readonly job: Job
  ) {}

  /** Whether the user may have the server start again in a new job. */
  get canRenew(): boolean {
    const renewals = this.job.facts?.renewals;
    return !!renewals && !renewals.left && renewals.more > 0;
  }

  /** Save every open document; Notebook has one on a page. */
  async save(): Promise<void> {
    const { Notification } = this.lab.apputils;
    const command = SAVE_ALL.find(one => this.app.commands.hasCommand(one) && this.app.commands.isEnabled(one));
    if (!command) {
      Notification.info('There is nothing to save here.', { autoClose: 5000 });
      return;
    }
    try {
      await this.app.commands.execute(command);
      Notification.success('Saved.', { autoClose: 5000 });
    } catch (error) {
      Notification.error(`Not saved: ${error}`, { autoClose: false });
    }
  }

  /** Ask the Hub for a job that follows. */
  async renew(): Promise<void> {
    const { Notification } = this.lab.apputils;
    const id = Notification.emit('Asking the Hub to renew\u2026', 'in-progress', { autoClose: false });
    const { done, message } = await this.job.ask('renew');
    Notification.update({ id, message, type: done ? 'success' : 'error', autoClose: done ? 10_000 : false });
  }

  /** Stop the server, once the user has said so again, and go to the Hub. */
  async stop(): Promise<void> {
    const { Dialog, Notification, showDialog } = this.lab.apputils;
    const sure = await showDialog({
      title: 'Stop this server?',
      body: 'The job ends. What is not saved, and all that runs, is lost.',
      buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Stop' })]
    });
    if (!sure.button.accept) {
      return;
    }
    const id = Notification.emit('Stopping the server\u2026', 'in-progress', { autoClose: false });
    const { done, message } = await this.job.ask('stop');
    if (done) {
      window.location.assign(this.job.facts?.hub ?? '/hub/home');
    } else {
      Notification.update({ id, message, type: 'error', autoClose: false });
    }
  }

  /** Show what is known of the job, with all actions. */
  async show(): Promise<void> {
    const { Dialog, showDialog } = this.lab.apputils;
    const facts = this.job.facts;
    if (!facts) {
      return;
    }
    const body = new this.lab.widgets.Widget();
    body.node.append(table(rows(facts, this.job.left)));
    const actions: [string, () => Promise<void>][] = [
      ['Stop\u2026', () => this.stop()],
      ['Save all', () => this.save()]
    ];
    if (this.canRenew) {
      actions.push(['Renew', () => this.renew()]);
    }
    const buttons = actions.map(([label]) => Dialog.createButton({ label, accept: false }));
    const chosen = await showDialog({
      title: 'The job of this server',
      body,
      buttons: [...buttons, Dialog.okButton({ label: 'Close' })],
      defaultButton: buttons.length
    });
    await actions.find(([label]) => label === chosen.button.label)?.[1]();
  }

  /** Warn that the time ends; returns the warning's id. */
  warn(message: string): string {
    const { Notification } = this.lab.apputils;
    const facts = this.job.facts;
    const actions = [{ label: 'Save all', callback: (event: MouseEvent) => this.stay(event, this.save()) }];
    if (this.canRenew) {
      actions.push({ label: 'Renew', callback: event => this.stay(event, this.renew()) });
    }
    const words = facts ? `${message} ${renewal(facts)}` : message;
    return Notification.warning(words, { autoClose: false, actions });
  }

  /** Do something from a warning, which stays: the time still ends. */
  private stay(event: MouseEvent, _: Promise<void>): void {
    event.preventDefault();
  }
}

function table(of: [string, string][]): HTMLElement {
  const made = document.createElement('table');
  made.className = 'hpcspawner-facts';
  for (const [name, value] of of) {
    const row = made.insertRow();
    const head = document.createElement('th');
    head.scope = 'row';
    head.textContent = name;
    row.append(head);
    row.insertCell().textContent = value;
  }
  return made;
}
