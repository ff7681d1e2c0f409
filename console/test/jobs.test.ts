import assert from "node:assert/strict";
import { test } from "node:test";
import { doneOf, type Job, modelsOf, Rates } from "../src/jobs";

const job = (more: Partial<Job> = {}): Job => ({
  id: "job_1",
  state: "JOB_STATE_RUNNING",
  tenant: "",
  models: { digits: "10" },
  total: "100",
  completed: "0",
  failed: "0",
  created_unix_ms: "1",
  ended_unix_ms: "0",
  ...more,
});

test("a rate is over the looks of the last seconds, failed requests included", () => {
  const rates = new Rates();
  rates.push(0, [job()]);
  assert.equal(rates.of(job()), null, "one look says nothing of a rate");
  rates.push(4, [job({ completed: "30", failed: "10" })]);
  assert.equal(rates.of(job()), 10);
  rates.push(20, [job({ completed: "30", failed: "10" })]);
  assert.equal(rates.of(job()), null, "what lies longer back is forgotten");
  rates.push(22, [job({ completed: "40", failed: "10" })]);
  assert.equal(rates.of(job()), 5);
});

test("a job that has ended, or left the list, has no rate", () => {
  const rates = new Rates();
  rates.push(0, [job()]);
  rates.push(2, [job({ completed: "100" })]);
  assert.equal(rates.of(job({ ended_unix_ms: "9" })), null);
  rates.push(3, []);
  assert.equal(rates.of(job()), null);
});

test("models are named by how much there is for each", () => {
  assert.equal(modelsOf(job()), "digits");
  assert.equal(modelsOf(job({ models: { a: "9", b: "10", c: "1" } })), "b and 2 more");
  assert.equal(modelsOf(job({ models: {} })), "");
  assert.equal(doneOf(job({ completed: "3", failed: "4" })), 7);
});
