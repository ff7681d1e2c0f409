import assert from "node:assert/strict";
import { test } from "node:test";
import { events } from "../src/sse";

async function read(...pieces: (string | Uint8Array)[]): Promise<string[]> {
  const body = new ReadableStream<Uint8Array>({
    start(controller) {
      for (const piece of pieces) controller.enqueue(typeof piece === "string" ? new TextEncoder().encode(piece) : piece);
      controller.close();
    },
  });
  const found: string[] = [];
  for await (const data of events(body)) found.push(data);
  return found;
}

test("events may come in any pieces, even within a character", async () => {
  const bytes = new TextEncoder().encode("data: größe\n\n");
  assert.deepEqual(await read(bytes.slice(0, 9), bytes.slice(9)), ["größe"]);
  assert.deepEqual(await read("data: a\n", "\ndata: b\n\nda", "ta: c\n\n"), ["a", "b", "c"]);
});

test("data of several lines is one; comments and names are none; what is not ended is not told", async () => {
  assert.deepEqual(await read("data: a\ndata: b\n\n: comment\n\nevent: x\n\ndata:c\r\n\r\ndata: half"), ["a\nb", "c"]);
});
