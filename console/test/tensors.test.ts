import assert from "node:assert/strict";
import { test } from "node:test";
import { type Entry, entryOf, MOST_ELEMENTS, requestBody, unsupported } from "../src/tensors";

const entry = (datatype: string, shape: number[], more: Partial<Entry> = {}): Entry => ({
  ...entryOf({ name: "x", datatype, shape }),
  ...more,
});
const data = (each: Entry) => JSON.parse(requestBody([each])).inputs[0].data;
const typed = (datatype: string, text: string) => entry(datatype, [-1], { fill: "values", typed: text });

test("free axes begin with 1, and tensors are filled to their size", () => {
  assert.deepEqual(entry("FP32", [-1, 3]).shape, [1, 3]);
  assert.deepEqual(data(entry("FP32", [-1, 3], { fill: "zeros" })), [0, 0, 0]);
  assert.deepEqual(data(entry("BOOL", [2], { fill: "ones" })), [true, true]);
  assert.equal(data(entry("INT64", [2, 5], { fill: "random" })).length, 10);
});

test("numbers are typed in any plain form", () => {
  assert.deepEqual(data(typed("FP32", "1, 2.5\n-3e2  +.5 007 4.")), [1, 2.5, -300, 0.5, 7, 4]);
  assert.deepEqual(data(typed("BOOL", "true,false")), [true, false]);
  assert.deepEqual(data(typed("FP32", "[[1, 2], [3, 4]]")), [[1, 2], [3, 4]]);
  assert.deepEqual(data(typed("BYTES", "a b\nc")), ["a b", "c"]);
});

test("whole numbers keep all their digits", () => {
  assert.match(requestBody([typed("INT64", "9007199254740993")]), /"data":\[9007199254740993\]/);
});

test("what is wrong is said, with the input's name", () => {
  assert.throws(() => requestBody([typed("FP32", "1 two")]), /input x: “two” is no FP32/);
  assert.throws(() => requestBody([typed("FP32", "[1,")]), /input x is no JSON/);
  assert.throws(() => requestBody([entry("FP32", [MOST_ELEMENTS + 1])]), /at most/);
  assert.match(unsupported([{ name: "h", datatype: "FP16", shape: [1] }]) ?? "", /h is FP16.*use gRPC/);
  assert.equal(unsupported([{ name: "x", datatype: "FP32", shape: [1] }]), null);
});
