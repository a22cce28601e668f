// The AI SDK with its own provider for OpenAI, which speaks the Responses API and refers to items by their ids.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOpenAI } from '@ai-sdk/openai';
import { generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const provider = createOpenAI({ baseURL: process.env.BASE_URL, apiKey: 'x' });
const settings = {
  model: provider(process.env.MODEL),
  maxRetries: 0,
  stopWhen: stepCountIs(3),
  providerOptions: { openai: { reasoningSummary: 'auto', forceReasoning: true } },
};

const weather = (asked) => tool({
  description: 'Get the weather in a city.',
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => { asked.push(city); return 'sunny'; },
});

test('a loop of calls, whole', async () => {
  const asked = [];
  const result = await generateText({ ...settings, prompt: 'Weather?', tools: { get_weather: weather(asked) } });
  assert.deepEqual(asked, ['Paris']);
  assert.equal(result.text, 'It is sunny in Paris.');
  assert.equal(result.reasoningText, 'Sunny.');
});

test('a loop of calls, streamed', async () => {
  const asked = [];
  const stream = streamText({ ...settings, prompt: 'Weather?', tools: { get_weather: weather(asked) } });
  let text = '';
  const kinds = new Set();
  for await (const part of stream.fullStream) {
    kinds.add(part.type);
    if (part.type === 'text-delta') text += part.text;
  }
  assert.deepEqual(asked, ['Paris']);
  assert.equal(text, 'It is sunny in Paris.');
  assert.ok(kinds.has('reasoning-delta'));
});
