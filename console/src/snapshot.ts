// What /console/live sends once a second: protobuf's JSON of GetStatusResponse and GetScalingResponse, see protos/headrace/v1.
// A gateway's is made in services/gateway/console/picture.py, a single replica's in services/single/picture.py.

/** A 64-bit integer, which protobuf's JSON writes as a string. */
export type Int64 = string;

export interface Snapshot {
  unix_ms: number;
  /** What rates and latencies in `status` are over. */
  window_seconds: number;
  status: Status;
  /** Null: this gateway knows of none. `state` null: it does not answer. */
  autoscaler: { address: string; state: Scaling | null } | null;
  /** Null: there is no job service; one that was there may be away. */
  jobs: { address: string; up: boolean } | null;
  /** Null: this is a gateway. Otherwise one process runs the model: of `status` there are its models and what they did. */
  replica: Replica | null;
}

export interface Status {
  gateway_id: string;
  version: string;
  front: string;
  registry_connected: boolean;
  broker_connected: boolean;
  models: ModelStatus[];
  workers: Worker[];
  rollouts: RolloutStatus[];
  gateways: { id: string; queues: QueueDemand[] }[];
  backlogs: Backlog[];
}

/** What a job service has still to send. */
export interface Backlog {
  id: string;
  /** Version 0: whichever is served to those who name none. */
  waiting: { name: string; version: Int64; requests: Int64 }[];
}

export interface Replica {
  /** Its model is in memory. */
  ready: boolean;
  /** The model of each step, where it is an ensemble. */
  members: { name: string; version: Int64; runtime: string }[];
}

export interface ModelStatus {
  name: string;
  version: Int64;
  queued: Int64;
  consumers: number;
  in_flight: number;
  answered: Int64;
  failed: Int64;
  requests_per_second: number;
  p50_ms: number;
  p99_ms: number;
  /** Rows per batch → batches, since the gateway's start. */
  batch_sizes: Record<string, Int64>;
  aliases: string[];
  runtime: string;
  language_model: boolean;
}

export interface QueueDemand {
  name: string;
  version: Int64;
  in_flight: number;
}

export interface Worker {
  id: string;
  device: string;
  models: HeldModel[];
  running: number;
  completed: Int64;
  resident_bytes: Int64;
  started_unix_ms: Int64;
  memory_budget_bytes: Int64;
  memory_used_bytes: Int64;
  loads: Int64;
  evictions: Int64;
  draining: boolean;
}

export interface HeldModel {
  name: string;
  version: Int64;
  state: string;
  reason: string;
  memory_bytes: Int64;
  progress: number;
  running: number;
  busy_us: Int64;
}

export interface RolloutStatus {
  name: string;
  rollout: {
    stable: Int64;
    candidate: Int64;
    weight: number;
    shadow: boolean;
    reason: string;
    changed_unix_ms: Int64;
  };
  shadow?: { matched: Int64; differed: Int64; failed: Int64 } | null;
}

export interface Scaling {
  active: boolean;
  active_address: string;
  paused: boolean;
  min_workers: number;
  max_workers: number;
  orchestrator: string;
  mode: string;
  decision?: Decision | null;
  changes: Decision[];
  queues: QueueState[];
  workers: { id: string; phase: string; age_seconds: number }[];
  start_seconds: number;
}

export interface Decision {
  unix_ms: Int64;
  target: number;
  previous: number;
  reason: string;
  needed: number;
  panic: boolean;
}

export interface QueueState {
  name: string;
  version: Int64;
  backlog: number;
  ready: Int64;
  unacknowledged: Int64;
  arrival_rate: number;
  service_rate: number;
  service_seconds: number;
  oldest_seconds: number;
}

/** How a model version is called everywhere in the console. */
export function keyOf(model: { name: string; version: Int64 }): string {
  return `${model.name}:${model.version}`;
}
