import assert from "node:assert/strict";
import { test } from "node:test";
import { History, KEPT_SECONDS } from "../src/history";
import { busiest, Palette, totals } from "../src/series";
import type { ModelStatus, Snapshot, Worker } from "../src/snapshot";

const model = (more: Partial<ModelStatus> = {}): ModelStatus => ({
  name: "m",
  version: "1",
  queued: "0",
  consumers: 1,
  in_flight: 0,
  answered: "0",
  failed: "0",
  requests_per_second: 0,
  p50_ms: 0,
  p99_ms: 0,
  batch_sizes: {},
  aliases: [],
  runtime: "onnx",
  language_model: false,
  ...more,
});

function snapshot(seconds: number, models: ModelStatus[], more: Partial<Snapshot["status"]> = {}): Snapshot {
  const status = { gateway_id: "g", version: "0", front: "grpc", registry_connected: true, broker_connected: true };
  return {
    unix_ms: 1e6 + seconds * 1000,
    window_seconds: 5,
    status: { ...status, models, workers: [], rollouts: [], gateways: [], backlogs: [], ...more },
    autoscaler: null,
    jobs: null,
    replica: null,
  };
}

function after(...snapshots: Snapshot[]): History {
  const history = new History();
  for (const each of snapshots) history.push(each);
  return history;
}

const last = (history: History, key = "m:1") => history.latest!.models.get(key)!;

test("rates are differences over the time between two looks, whatever that is", () => {
  const history = after(snapshot(0, [model({ answered: "10" })]), snapshot(2, [model({ answered: "40", failed: "4" })]));
  assert.equal(last(history).answered, 15);
  assert.equal(last(history).failed, 2);
});

test("nothing is known of rates at the first look, nor of a model that has just come", () => {
  assert.equal(last(after(snapshot(0, [model({ answered: "10" })]))).answered, null);
  const history = after(snapshot(0, [model()]), snapshot(1, [model(), model({ name: "n", answered: "7" })]));
  assert.equal(last(history, "n:1").answered, null);
});

test("batches are those since the look before, and their mean is by rows", () => {
  const history = after(
    snapshot(0, [model({ batch_sizes: { "1": "5", "8": "1" } })]),
    snapshot(1, [model({ batch_sizes: { "1": "6", "8": "4" } })]),
  );
  assert.deepEqual(last(history).batches, { batches: 4, rows: 25 });
  assert.equal(totals(history.latest!, null)?.batch, 25 / 4);
  history.push(snapshot(2, [model({ batch_sizes: { "1": "6", "8": "4" } })]));
  assert.equal(totals(history.latest!, null)?.batch, null, "no batch was run: there is no mean");
});

test("latencies are left out where there were no requests", () => {
  assert.equal(last(after(snapshot(0, [model({ p99_ms: 0 })]))).p99, null);
  assert.equal(last(after(snapshot(0, [model({ requests_per_second: 1, p99_ms: 12 })]))).p99, 12);
});

test("another gateway's counters are not compared, and the lines break", () => {
  const history = after(
    snapshot(0, [model({ answered: "1000" })]),
    snapshot(1, [model({ answered: "3" })], { gateway_id: "h" }),
  );
  assert.equal(last(history).answered, null);
  assert.equal(history.samples.length, 3, "an empty sample stands between the two");
  assert.equal(totals(history.samples[1]!, null), null);
});

test("a gap in time breaks the lines", () => {
  const history = after(snapshot(0, [model()]), snapshot(60, [model({ answered: "600" })]));
  assert.equal(history.samples[1]!.models.size, 0);
  assert.equal(last(history).answered, null);
});

test("unanswered requests are all gateways', this one's as it counts them now", () => {
  const queues = (in_flight: number) => [{ name: "m", version: "1", in_flight }];
  const gateways = [
    { id: "g", queues: queues(99) },
    { id: "h", queues: queues(5) },
  ];
  assert.equal(last(after(snapshot(0, [model({ in_flight: 2 })], { gateways }))).unanswered, 7);
});

test("a device's share of time is measured over several seconds and never more than all of it", () => {
  const worker = (completed: number, busy_us: number) =>
    ({ id: "w", running: 0, completed: String(completed), models: [{ name: "m", version: "1", busy_us: String(busy_us) }] }) as Worker;
  const looks = [0, 1, 2, 3].map((at) => snapshot(at, [model()], { workers: [worker(10 * at, 250_000 * at)] }));
  const point = after(...looks).latest!.workers.get("w")!;
  assert.equal(point.completed, 10);
  assert.equal(point.busy, 0.25);
});

test("half an hour is kept", () => {
  const history = new History();
  for (let at = 0; at < KEPT_SECONDS + 300; at++) history.push(snapshot(at, [model()]));
  const seconds = history.latest!.at - history.samples[0]!.at;
  assert.ok(seconds >= KEPT_SECONDS && seconds < KEPT_SECONDS + 90, `${seconds}`);
});

test("the busiest come first; their colours stay when ranks change", () => {
  const named = (name: string, answered: number) => model({ name, answered: String(answered) });
  const history = after(
    snapshot(0, [named("a", 0), named("b", 0), named("c", 0)]),
    snapshot(1, [named("a", 5), named("b", 9), named("c", 0)]),
  );
  assert.deepEqual(busiest(history, 5), ["b:1", "a:1"]);
  const palette = new Palette();
  const before = palette.assign(["b:1", "a:1"]);
  assert.deepEqual(palette.assign(["a:1", "b:1"]), before);
  assert.deepEqual(
    palette.assign(["a:1", "c:1"]).map((each) => each.key),
    ["c:1", "a:1"],
    "the newcomer takes the free colour",
  );
});
