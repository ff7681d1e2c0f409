// One generation over OpenAI's streaming protocol.

import { useEffect, useRef, useState } from "preact/hooks";
import { call, wordsOf } from "./api";
import { events } from "./sse";

export interface Asked {
  kind: "completions" | "chat/completions";
  prompt: string;
  maxTokens: number;
  temperature: number;
  /** Empty: any. */
  seed: string;
}

export interface Generation {
  running: boolean;
  began: boolean;
  done: boolean;
  text: string;
  error: string;
  /** From the request to the first piece of text. */
  firstMs: number | null;
  /** As the server counted them, at the end. */
  tokens: number | null;
  rate: number | null;
  reason: string | null;
}

interface Chunk {
  choices?: { text?: string; delta?: { content?: string | null }; finish_reason?: string | null }[];
  usage?: { completion_tokens: number } | null;
  error?: { message: string };
}

const NOTHING: Generation = {
  running: false,
  began: false,
  done: false,
  text: "",
  error: "",
  firstMs: null,
  tokens: null,
  rate: null,
  reason: null,
};

export function useGeneration(model: string) {
  const [state, setState] = useState(NOTHING);
  const leaving = useRef(new AbortController());
  useEffect(() => () => leaving.current.abort(), []);
  const start = async (asked: Asked) => {
    const { signal } = (leaving.current = new AbortController());
    let now: Generation = { ...NOTHING, running: true, began: true };
    setState(now);
    try {
      for await (const next of generate(model, asked, signal, now)) setState((now = next));
      setState({ ...now, running: false, done: true });
    } catch (error) {
      if (signal.aborted) setState({ ...now, running: false, done: true, reason: "you" });
      else setState({ ...now, running: false, error: wordsOf(error) });
    }
  };
  return { state, start, stop: () => leaving.current.abort() };
}

async function* generate(model: string, asked: Asked, signal: AbortSignal, state: Generation): AsyncGenerator<Generation> {
  const began = performance.now();
  const response = await call(`v1/${asked.kind}`, { body: JSON.stringify(bodyOf(model, asked)), signal });
  if (response.body === null) throw new Error("the server sent nothing");
  let first = 0;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data) as Chunk;
    if (chunk.error) throw new Error(chunk.error.message);
    const choice = chunk.choices?.[0];
    const text = choice?.text ?? choice?.delta?.content ?? "";
    const now = performance.now();
    if (text && first === 0) state = { ...state, firstMs: (first = now) - began };
    state = { ...state, text: state.text + text, reason: choice?.finish_reason ?? state.reason };
    if (chunk.usage) {
      const tokens = chunk.usage.completion_tokens;
      const seconds = (now - first) / 1000;
      state = { ...state, tokens, rate: first > 0 && tokens > 1 && seconds > 0 ? (tokens - 1) / seconds : null };
    }
    yield state;
  }
  throw new Error("the stream broke off before its end");
}

function bodyOf(model: string, { kind, prompt, maxTokens, temperature, seed }: Asked): object {
  return {
    model,
    ...(kind === "completions" ? { prompt } : { messages: [{ role: "user", content: prompt }] }),
    max_tokens: maxTokens,
    temperature,
    ...(seed === "" ? {} : { seed: Number(seed) }),
    stream: true,
    stream_options: { include_usage: true },
  };
}
