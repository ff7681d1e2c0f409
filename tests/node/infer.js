// Google's JavaScript gRPC client against a running stack, run by tests/e2e/test_clients.py: `node infer.js HOST:PORT`.
"use strict";
const assert = require("node:assert/strict");
const path = require("node:path");
const grpc = require("@grpc/grpc-js");
const loader = require("@grpc/proto-loader");

const protos = path.join(__dirname, "..", "..", "protos");
const definition = loader.loadSync("headrace/inference/grpc_service.proto", { includeDirs: [protos], keepCase: true });
const { GRPCInferenceService } = grpc.loadPackageDefinition(definition).inference;

const raw = (values) => Buffer.from(new Float32Array(values).buffer);
const floats = (model, values, shape) => ({
  model_name: model,
  inputs: [{ name: "x", datatype: "FP32", shape }],
  raw_input_contents: [raw(values)],
});

function infer(client, request, options = {}) {
  return new Promise((resolve) => {
    let answer;
    const call = client.ModelInfer(request, new grpc.Metadata(), options, (error, response) => {
      answer = { error, response };
    });
    call.on("status", (status) => resolve({ ...answer, status }));
  });
}

function stream(client, requests) {
  return new Promise((resolve, reject) => {
    const answers = [];
    const call = client.ModelStreamInfer();
    call.on("data", (answer) => answers.push(answer));
    call.on("error", reject);
    call.on("end", () => resolve(answers));
    requests.forEach((request) => call.write(request));
    call.end();
  });
}

async function main(address) {
  const client = new GRPCInferenceService(address, grpc.credentials.createInsecure());
  const good = floats("add_one", Array(16).fill(41), [1, 16]);

  const { response, status } = await infer(client, good, { deadline: Date.now() + 30000 });
  assert.deepEqual([...new Float32Array(new Uint8Array(response.raw_output_contents[0]).buffer)], Array(16).fill(42));
  assert.ok("queue_us" in JSON.parse(status.metadata.get("headrace-receipt")[0]));

  const missing = await infer(client, floats("nope", [1], [1, 1]));
  assert.equal(missing.status.code, grpc.status.NOT_FOUND);
  const misshapen = await infer(client, floats("add_one", [1, 2, 3], [1, 3]));
  assert.equal(misshapen.status.code, grpc.status.INVALID_ARGUMENT);
  const slow = { model_name: "burn", inputs: [{ name: "turns", datatype: "INT64", contents: { int64_contents: [5000] } }] };
  const late = await infer(client, slow, { deadline: Date.now() + 300 });
  assert.equal(late.status.code, grpc.status.DEADLINE_EXCEEDED);

  const answers = await stream(client, [good, floats("nope", [1], [1, 1]), good]);
  assert.deepEqual(answers.map((answer) => Boolean(answer.error_message)), [false, true, false]);

  const many = await Promise.all(
    Array.from({ length: 64 }, (_, number) => infer(client, floats("add_one", Array(16).fill(number), [1, 16]))),
  );
  many.forEach(({ response: one }, number) => assert.equal(one.raw_output_contents[0].readFloatLE(0), number + 1));
  client.close();
}

main(process.argv[2]).catch((error) => {
  console.error(error);
  process.exit(1);
});
