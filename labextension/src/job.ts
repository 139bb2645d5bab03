// The job as the server on the node tells of it (hpcspawner/programs/status_server.py).
import type { ServerConnection } from '@jupyterlab/services';
import type { Jupyter } from './shared';

/** What the user may ask for from here. */
export type Ask = 'renew' | 'stop';

/** Facts of the job; null and '' where they are not known. Sizes are in bytes, times in seconds. */
export interface Facts {
  job: string;
  cluster: string;
  node: string;
  partition: string;
  nodes: number;
  cpus: number | null;
  gpus: string;
  memory: number | null;
  memory_used: number | null;
  /** Until the wall time ends, when the answer was made. */
  left_s: number | null;
  /** Whether the scheduler has warned the job. */
  warned: boolean;
  /** How long before the end to warn. */
  reminders_s: number[];
  /** How often the server starts again by itself, and how often the user may still ask for that. */
  renewals: { left: number; more: number } | null;
  /** What was asked for last, and what came of it. */
  asked: { what: Ask; state: 'sent' | 'done' | 'failed'; message: string } | null;
  /** The Hub's page with the user's servers. */
  hub: string;
}

const OFTEN_MS = 1_000;
const SELDOM_MS = 20_000;
const MOST_WAIT_MS = 60_000;

/** Asks the server about its job, and hands on what the user wants. */
export class Job {
  /** The last answer; null until there is one. */
  facts: Facts | null = null;
  private readonly settings: ServerConnection.ISettings;
  private readonly url: string;
  private endsAt: number | null = null;

  constructor(
    private readonly lab: Jupyter,
    private readonly changed: () => void
  ) {
    this.settings = lab.services.ServerConnection.makeSettings();
    this.url = lab.coreutils.URLExt.join(this.settings.baseUrl, 'hpcspawner/job');
  }

  /** Seconds until the wall time ends, now; null where that is not known. */
  get left(): number | null {
    // By the time that has passed here: the browser's clock may be wrong.
    return this.endsAt === null ? null : Math.max(0, Math.round((this.endsAt - performance.now()) / 1000));
  }

  /** Ask now and then, for as long as the page is there. False where the server knows nothing of a job. */
  async watch(): Promise<boolean> {
    const response = await this.request();
    if (!response?.ok) {
      return false;
    }
    await this.take(response);
    setInterval(() => {
      if (!document.hidden) {
        void this.refresh();
      }
    }, SELDOM_MS);
    document.addEventListener('visibilitychange', () => {
      if (!document.hidden) {
        void this.refresh();
      }
    });
    return true;
  }

  /** Ask for something; resolves with what came of it, in words. */
  async ask(what: Ask): Promise<{ done: boolean; message: string }> {
    const response = await this.request({ method: 'POST', body: JSON.stringify({ ask: what }) });
    if (!response?.ok) {
      return { done: false, message: 'The server did not take the request. Try again.' };
    }
    const deadline = performance.now() + MOST_WAIT_MS;
    while (performance.now() < deadline) {
      await new Promise(resolve => setTimeout(resolve, OFTEN_MS));
      if (!(await this.refresh()) && what === 'stop') {
        return { done: true, message: '' }; // the way to the server has gone with it
      }
      const asked = this.facts?.asked;
      if (asked?.what === what && asked.state !== 'sent') {
        return { done: asked.state === 'done', message: asked.message };
      }
    }
    return { done: false, message: 'The Hub has not answered. Try again.' };
  }

  /** Ask anew; whether there was an answer. */
  private async refresh(): Promise<boolean> {
    const response = await this.request();
    if (response?.ok) {
      await this.take(response);
    }
    return response?.ok ?? false;
  }

  private async take(response: Response): Promise<void> {
    this.facts = (await response.json()) as Facts;
    const left = this.facts.left_s;
    this.endsAt = left === null ? null : performance.now() + 1000 * left;
    this.changed();
  }

  private async request(init: RequestInit = {}): Promise<Response | null> {
    try {
      return await this.lab.services.ServerConnection.makeRequest(this.url, init, this.settings);
    } catch {
      return null; // the server or the way to it is away; what is known still holds
    }
  }
}
