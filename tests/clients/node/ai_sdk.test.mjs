// The AI SDK (`ai`) with its provider for OpenAI-compatible servers.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateText, Output, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const provider = createOpenAICompatible({
  name: 'gptoss',
  baseURL: process.env.BASE_URL,
  apiKey: 'x',
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const greedy = { model: provider(process.env.MODEL), temperature: 0, frequencyPenalty: 1, maxRetries: 0 };
const Person = z.object({ name: z.string(), age: z.number().int() });

const weather = (asked) => tool({
  description: 'Get the weather in a city.',
  inputSchema: z.object({ city: z.string() }),
  execute: async ({ city }) => { asked.push(city); return { temperature: 18 }; },
});

test('generateText has text, reasoning and usage', async () => {
  const result = await generateText({ ...greedy, prompt: 'Hello' });
  assert.ok(result.text);
  assert.ok(result.reasoningText);
  assert.ok(result.usage.outputTokens > 0);
  assert.equal(result.finishReason, 'stop');
});

test('streamText joined is generateText', async () => {
  const whole = await generateText({ ...greedy, prompt: 'Hello' });
  const stream = streamText({ ...greedy, prompt: 'Hello' });
  const kinds = new Set();
  let text = '';
  for await (const part of stream.fullStream) {
    kinds.add(part.type);
    if (part.type === 'text-delta') text += part.text;
  }
  assert.equal(text, whole.text);
  assert.ok(kinds.has('reasoning-delta'));
  assert.ok((await stream.usage).outputTokens > 0);
});

test('an object as the answer', async () => {
  const result = await generateText({
    ...greedy,
    prompt: 'Anna is 23 years old.',
    output: Output.object({ schema: Person }),
  });
  Person.parse(result.output);
});

test('an object as the answer, streamed', async () => {
  const stream = streamText({ ...greedy, prompt: 'Anna is 23 years old.', output: Output.object({ schema: Person }) });
  let last;
  for await (const partial of stream.partialOutputStream) last = partial;
  Person.parse(last);
});

for (const run of [generateText, streamText]) {
  test(`a tool is called and its result used: ${run.name}`, async () => {
    const asked = [];
    const result = await run({
      ...greedy,
      prompt: 'What is the weather in Paris?',
      tools: { get_weather: weather(asked) },
      stopWhen: stepCountIs(3),
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'none' }),
    });
    assert.ok(await result.text);
    assert.equal(asked.length, 1);
    assert.equal(typeof asked[0], 'string');
  });
}

test('a forced call', async () => {
  const result = await generateText({
    ...greedy,
    prompt: 'Create a user: Anna, 23',
    tools: { create_user: tool({ description: 'Create a user.', inputSchema: Person }) },
    toolChoice: 'required',
  });
  Person.parse(result.toolCalls[0].input);
});
