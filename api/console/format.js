// Numbers and times as people read them.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const short = new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 });

export const count = (value) => (value === null || value === undefined ? "–" : whole.format(value));

export const brief = (value) => (value < 10_000 ? count(value) : short.format(value));

export function span(milliseconds) {
  if (milliseconds === null || milliseconds === undefined) return "–";
  if (milliseconds < 1) return "0";
  if (milliseconds < 1000) return `${Math.round(milliseconds)} ms`;
  const seconds = milliseconds / 1000;
  if (seconds < 60) return `${seconds.toFixed(seconds < 10 ? 1 : 0)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${Math.floor(seconds % 60)} s`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
}

export const rate = (value, unit) => (value === null || value === undefined ? "–" : `${value < 10 ? value.toFixed(1) : count(value)} ${unit}`);

export const share = (value) => (value === null || value === undefined ? "–" : `${Math.round(value * 100)} %`);

export const bytes = (value) => `${(value / 2 ** 30).toFixed(1)} GiB`;

export const clock = (time) => (time ? new Date(time).toLocaleTimeString([], { hour12: false }) : "–");

export const since = (time, now) => (time ? span(Math.max(0, new Date(now) - new Date(time))) : "–");

export const cut = (id) => (id.length > 18 ? `${id.slice(0, 8)}…${id.slice(-6)}` : id);
