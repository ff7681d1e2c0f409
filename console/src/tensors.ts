// Tensors as JSON text. Text, not numbers: 64-bit integers are more than JavaScript's numbers hold. Pure.

export interface TensorSpec {
  name: string;
  datatype: string;
  /** -1: any size. */
  shape: number[];
}

export type Fill = "zeros" | "ones" | "random" | "values";

/** One input as the form has it. */
export interface Entry {
  spec: TensorSpec;
  shape: number[];
  fill: Fill;
  /** What was typed, where `fill` is "values". */
  typed: string;
}

/** The page would stall on more. */
export const MOST_ELEMENTS = 1_000_000;
const NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;
const RAW_ONLY = new Set(["FP16", "BF16"]);

/** Why a model cannot be asked in JSON; null: it can. */
export function unsupported(inputs: TensorSpec[]): string | null {
  const raw = inputs.find((each) => RAW_ONLY.has(each.datatype));
  return raw ? `input ${raw.name} is ${raw.datatype}, which JSON cannot carry; use gRPC` : null;
}

export function entryOf(spec: TensorSpec): Entry {
  const shape = spec.shape.map((size) => (size < 0 ? 1 : size));
  return { spec, shape, fill: spec.datatype === "BYTES" ? "values" : "random", typed: "" };
}

export function sizeOf(shape: number[]): number {
  return shape.reduce((product, size) => product * size, 1);
}

/** The request's body. Throws Errors that name the input at fault. */
export function requestBody(entries: Entry[]): string {
  const inputs = entries.map((each) => {
    const { name, datatype } = each.spec;
    const head = JSON.stringify({ name, datatype, shape: each.shape });
    return `${head.slice(0, -1)},"data":${dataOf(each)}}`;
  });
  return `{"inputs":[${inputs.join(",")}]}`;
}

function dataOf(entry: Entry): string {
  const size = sizeOf(entry.shape);
  if (size > MOST_ELEMENTS) {
    throw new Error(`input ${entry.spec.name} has ${size} elements; this page sends ${MOST_ELEMENTS} at most`);
  }
  if (entry.fill === "values") return typedData(entry);
  const one = elementOf(entry.spec.datatype, entry.fill);
  return `[${Array.from({ length: size }, one).join(",")}]`;
}

function elementOf(datatype: string, fill: Fill): () => string {
  const float = datatype.startsWith("FP");
  if (datatype === "BOOL") return fill === "random" ? () => String(Math.random() < 0.5) : () => String(fill === "ones");
  if (datatype === "BYTES") return fill === "random" ? () => `"${Math.random().toString(36).slice(2, 8)}"` : () => (fill === "ones" ? '"1"' : '""');
  if (fill !== "random") return () => (fill === "ones" ? "1" : "0");
  return float ? () => Math.random().toFixed(4) : () => String(Math.floor(10 * Math.random()));
}

/** JSON as it is; or numbers apart by commas and blanks; or, for BYTES, one text a line. */
function typedData({ spec, typed }: Entry): string {
  const text = typed.trim();
  if (text.startsWith("[")) {
    try {
      JSON.parse(text);
    } catch (error) {
      throw new Error(`input ${spec.name} is no JSON: ${(error as Error).message}`);
    }
    return text;
  }
  if (spec.datatype === "BYTES") return JSON.stringify(typed.split("\n"));
  const parts = text.split(/[\s,]+/).filter(Boolean);
  const wrong = parts.find((part) => !(spec.datatype === "BOOL" ? /^(true|false)$/ : NUMBER).test(part));
  if (wrong !== undefined) throw new Error(`input ${spec.name}: “${wrong}” is no ${spec.datatype}`);
  return `[${parts.map((part) => normal(part)).join(",")}]`;
}

/** JSON has no leading plus or point, and no trailing one. */
function normal(part: string): string {
  return part.replace(/^\+/, "").replace(/^(-?)\./, "$10.").replace(/\.(?=e|$)/i, "").replace(/^(-?)0+(?=\d)/, "$1");
}
