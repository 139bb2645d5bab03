// When to warn that the time ends.
import type { Actions } from './actions';
import type { Job } from './job';
import type { Jupyter } from './shared';
import { span } from './words';

// As near to the end as the scheduler's own warning: nothing comes after it.
const AT_SIGNAL = 0;

/** Shows each warning once on a page, the later in place of the earlier. */
export class Reminders {
  private reached = Infinity;
  private shown = '';

  constructor(
    private readonly lab: Jupyter,
    private readonly job: Job,
    private readonly actions: Actions
  ) {}

  /** Warn if it is time to. */
  look(): void {
    const { facts, left } = this.job;
    if (!facts) {
      return;
    }
    if (left !== null && left > Math.max(...facts.reminders_s, 0) && !facts.warned) {
      this.reached = Infinity; // the admin has given the job more time
      return;
    }
    const due = facts.warned ? AT_SIGNAL : Math.min(...facts.reminders_s.filter(one => left !== null && left <= one));
    if (due >= this.reached) {
      return;
    }
    this.reached = due;
    if (this.shown) {
      this.lab.apputils.Notification.dismiss(this.shown);
    }
    this.shown = this.actions.warn(left ? `The time of this job ends in ${span(left)}.` : 'The time of this job ends.');
  }
}
