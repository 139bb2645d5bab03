// The words for what is shown.
import type { Facts } from './job';

/** A length of time in seconds, for people: 1 h 05 min, 42 min, 4:32 where each second counts. */
export function span(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  if (minutes >= 24 * 60) {
    return `${Math.floor(minutes / 1440)} d ${Math.floor((minutes % 1440) / 60)} h`;
  }
  if (minutes >= 60) {
    return `${Math.floor(minutes / 60)} h ${String(minutes % 60).padStart(2, '0')} min`;
  }
  return minutes >= 10 ? `${minutes} min` : `${minutes}:${String(seconds % 60).padStart(2, '0')} min`;
}

/** Bytes as GB, as schedulers count them: of 1024 MB. */
function size(bytes: number): string {
  return (bytes / 2 ** 30).toFixed(1);
}

/** Memory used of memory asked, such as `1.2 of 4.0 GB`; empty where neither is known. */
export function memory(facts: Facts): string {
  const { memory: asked, memory_used: used } = facts;
  if (used === null) {
    return asked === null ? '' : `${size(asked)} GB`;
  }
  return asked === null ? `${size(used)} GB` : `${size(used)} of ${size(asked)} GB`;
}

/** Time left, in a sentence's part. */
export function timeLeft(left: number | null): string {
  return left === null ? '' : left > 0 ? `${span(left)} left` : 'the time is over';
}

/** What the status bar shows. */
export function line(facts: Facts, left: number | null): string {
  const where = facts.nodes > 1 ? `${facts.node} and ${facts.nodes - 1} more` : facts.node;
  const parts = [timeLeft(left), facts.cluster, facts.partition, where, facts.gpus, memory(facts), `job ${facts.job}`];
  return parts.filter(part => part).join(' \u00b7 ');
}

/** The facts with their names, as a dialog lists them. */
export function rows(facts: Facts, left: number | null): [string, string][] {
  const all: [string, string][] = [
    ['Time left', left === null ? 'not known' : span(left)],
    ['Cluster', facts.cluster],
    ['Partition', facts.partition],
    ['Node', facts.node],
    ['Nodes', facts.nodes > 1 ? String(facts.nodes) : ''],
    ['Cores', facts.cpus === null ? '' : String(facts.cpus)],
    ['GPUs', facts.gpus],
    ['Memory', memory(facts)],
    ['Job', facts.job],
    ['At the end', renewal(facts)]
  ];
  return all.filter(([, value]) => value);
}

/** What happens when the wall time ends. */
export function renewal(facts: Facts): string {
  if (facts.renewals?.left) {
    return 'A new job takes over: the server comes back with the files that are saved.';
  }
  return 'The scheduler ends this job. What is not saved, and all that runs, is lost.';
}
