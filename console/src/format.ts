// Numbers and times for people. Digits stay few, so that a figure that moves can be read.

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });
const hundredth = new Intl.NumberFormat("en", { minimumFractionDigits: 2, maximumFractionDigits: 2 });
/** What stands where nothing is known. */
export const NONE = "–";

export type Show = (value: number | null | undefined) => string;

const known =
  (show: (value: number) => string): Show =>
  (value) =>
    value === null || value === undefined || !Number.isFinite(value) ? NONE : show(value);

export const count = known((value) => whole.format(value));
/** Rates, sizes of batches: a decimal below a hundred. */
export const figure = known((value) => (value >= 100 || value === 0 ? whole : tenth).format(value));
/** Milliseconds, unit aside; three digits. */
export const ms = known((value) => (value >= 100 ? whole : value >= 10 ? tenth : hundredth).format(value));
export const percent = known((value) => `${value > 0 && value < 0.005 ? "<1" : whole.format(100 * value)} %`);

/** "1 row", "2 rows". */
export const many = (value: number, thing: string): string => `${count(value)} ${thing}${value === 1 ? "" : "s"}`;

export const bytes = known((value) => {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const step = value < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(value) / 10));
  const scaled = value / 1024 ** step;
  return `${(scaled >= 100 || step === 0 ? whole : tenth).format(scaled)} ${units[step]}`;
});

export const duration = known((seconds) => {
  if (seconds < 60) return `${whole.format(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor((seconds % 86_400) / 3600)} h`;
});

/** Seconds since 1970 → the reader's clock. */
export const clock = known((seconds) => {
  const at = new Date(seconds * 1000);
  return [at.getHours(), at.getMinutes(), at.getSeconds()].map((part) => String(part).padStart(2, "0")).join(":");
});

/** Ticks of an axis: as many decimals as they need, thousands short. */
export function tick(value: number): string {
  if (Math.abs(value) >= 10_000) return `${Number((value / 1000).toPrecision(4))}k`;
  return String(Number(value.toPrecision(4)));
}
