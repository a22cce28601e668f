// The AI SDK over the Responses API: with its own provider for OpenAI, which refers to items by their ids, and
// with the one for any server, which sends everything again.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOpenAI } from '@ai-sdk/openai';
import { createOpenResponses } from '@ai-sdk/open-responses';
import { generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const openai = createOpenAI({ baseURL: process.env.BASE_URL, apiKey: 'x' });
const open = createOpenResponses({ name: 'gptoss', url: `${process.env.BASE_URL}/responses`, apiKey: 'x' });
const Person = z.object({ name: z.string(), age: z.number().int() });
const providers = {
  openai: [openai(process.env.MODEL), { openai: { reasoningSummary: 'auto', forceReasoning: true } }],
  'open-responses': [open(process.env.MODEL), { gptoss: { reasoningSummary: 'auto' } }],
};

const weather = (asked) => tool({
  description: 'Get the weather in a city.',
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => { asked.push(city); return 'sunny'; },
});

for (const [name, [model, providerOptions]] of Object.entries(providers)) {
  const settings = { model, maxRetries: 0, stopWhen: stepCountIs(3), providerOptions };

  test(`a loop of calls, whole: ${name}`, async () => {
    const asked = [];
    const result = await generateText({ ...settings, prompt: 'Weather?', tools: { get_weather: weather(asked) } });
    assert.deepEqual(asked, ['Paris']);
    assert.equal(result.text, 'It is sunny in Paris.');
    assert.equal(result.reasoningText, 'Sunny.');
    assert.equal(result.finishReason, 'stop');
    assert.ok(result.usage.outputTokens > 0);
  });

  test(`a loop of calls, streamed: ${name}`, async () => {
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

  test(`an object as the answer: ${name}`, async () => {
    const result = await generateText({ ...settings, prompt: 'Who?', output: Output.object({ schema: Person }) });
    assert.deepEqual(result.output, { name: 'Anna', age: 23 });
  });
}
