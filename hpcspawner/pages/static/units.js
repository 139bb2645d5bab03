// Times and amounts of memory as people write them; null for what the Hub would refuse.
const SECONDS = { d: 86400, h: 3600, m: 60, s: 1 };
const MIB = { M: 1, G: 1024, T: 1024 * 1024 };

export function secondsOf(text) {
  const clock = /^(?:(\d{1,4})-)?(\d{1,4}):([0-5]\d):([0-5]\d)$/.exec(text.trim());
  if (clock) {
    const [days, hours, minutes, seconds] = clock.slice(1).map((part) => Number(part ?? 0));
    return days * 86400 + hours * 3600 + minutes * 60 + seconds || null;
  }
  const words = /^(?:(\d{1,6})d\s*)?(?:(\d{1,6})h\s*)?(?:(\d{1,6})m\s*)?(?:(\d{1,6})s)?$/.exec(text.trim().toLowerCase());
  if (!words) return null;
  const total = Object.values(SECONDS).reduce((sum, length, index) => sum + Number(words[index + 1] ?? 0) * length, 0);
  return total || null;
}

// In MiB, as the Hub counts.
export function mebibytesOf(text) {
  const match = /^(\d{1,9}(?:\.\d{1,3})?)\s*([MGT])(?:i?B)?$/i.exec(text.trim());
  return match ? Math.floor(Number(match[1]) * MIB[match[2].toUpperCase()]) || null : null;
}
