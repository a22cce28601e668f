// anthropic-sdk-typescript, and the AI SDK's provider for Anthropic.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { createAnthropic } from '@ai-sdk/anthropic';
import Anthropic from '@anthropic-ai/sdk';
import { betaZodTool } from '@anthropic-ai/sdk/helpers/beta/zod';
import { zodOutputFormat } from '@anthropic-ai/sdk/helpers/zod';
import { generateText, stepCountIs, streamText, tool } from 'ai';
import { z } from 'zod';

const client = new Anthropic({ baseURL: process.env.BASE_URL.replace(/\/v1$/, ''), apiKey: 'x', maxRetries: 0 });
const greedy = { model: process.env.MODEL, max_tokens: 400, temperature: 0 };
const user = (content) => [{ role: 'user', content }];
const weather = {
  name: 'get_weather',
  description: 'Get the weather in a city.',
  input_schema: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
};

test('a message', async () => {
  const message = await client.messages.create({ ...greedy, messages: user('Hello') });
  assert.deepEqual(message.content.map((block) => block.type), ['thinking', 'text']);
  assert.ok(message.content[0].signature);
  assert.equal(message.stop_reason, 'end_turn');
  assert.ok(message._request_id);
});

test('a stream joined is the message', async () => {
  const whole = await client.messages.create({ ...greedy, messages: user('What is 2 + 2?') });
  const stream = client.messages.stream({ ...greedy, messages: user('What is 2 + 2?') });
  let text = '';
  stream.on('text', (delta) => { text += delta; });
  const final = await stream.finalMessage();
  assert.equal(text, whole.content[1].text);
  assert.equal(final.content[0].thinking, whole.content[0].thinking);
});

test('a forced call, streamed', async () => {
  const tool_choice = { type: 'any' };
  const asked = { ...greedy, messages: user('Weather in Paris?'), tools: [weather], tool_choice };
  const final = await client.messages.stream(asked).finalMessage();
  assert.equal(final.stop_reason, 'tool_use');
  assert.equal(typeof final.content.at(-1).input.city, 'string');
});

for (const stream of [false, true]) {
  test(`the tool runner runs to an answer${stream ? ', streamed' : ''}`, async () => {
    const asked = [];
    const runner = client.beta.messages.toolRunner({
      ...greedy,
      messages: user('What is the weather in Paris?'),
      tools: [betaZodTool({
        name: 'get_weather',
        description: 'Get the weather in a city.',
        inputSchema: z.object({ city: z.string() }),
        run: ({ city }) => { asked.push(city); return '{"temperature": 18}'; },
      })],
      tool_choice: { type: 'any' },
      max_iterations: 2,
      stream,
    });
    const messages = [];
    for await (const each of runner) messages.push(stream ? await each.finalMessage() : each);
    assert.equal(messages.length, 2);
    assert.equal(messages[0].stop_reason, 'tool_use');
    assert.ok(asked.length >= 1);
  });
}

test('an object as the answer', async () => {
  const Person = z.object({ name: z.string(), age: z.number().int() });
  const output_config = { format: zodOutputFormat(Person) };
  const message = await client.messages.parse({ ...greedy, messages: user('Anna is 23 years old.'), output_config });
  Person.parse(message.parsed_output);
});

test('tokens are counted', async () => {
  const { input_tokens } = await client.messages.countTokens({ model: process.env.MODEL, messages: user('Hello') });
  assert.ok(input_tokens > 10);
});

test('models', async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, [process.env.MODEL]);
});

test('errors are the SDK\'s own', async () => {
  await assert.rejects(client.messages.create({ ...greedy, model: 'nobody', messages: user('a') }), Anthropic.NotFoundError);
  await assert.rejects(
    client.messages.create({ ...greedy, messages: user('word '.repeat(20_000)) }),
    (error) => error instanceof Anthropic.BadRequestError && /prompt is too long: \d+ tokens > \d+ maximum/.test(error.message),
  );
});

const provider = createAnthropic({ baseURL: process.env.BASE_URL, apiKey: 'x' });
const model = { model: provider(process.env.MODEL), maxRetries: 0, maxOutputTokens: 400, temperature: 0 };

test('the AI SDK has text, reasoning and usage', async () => {
  const result = await generateText({ ...model, prompt: 'Hello' });
  assert.ok(result.text);
  assert.ok(result.reasoningText);
  assert.ok(result.usage.outputTokens > 0);
  assert.equal(result.finishReason, 'stop');
});

for (const run of [generateText, streamText]) {
  test(`a tool is called and its result used: ${run.name}`, async () => {
    const asked = [];
    const result = await run({
      ...model,
      prompt: 'What is the weather in Paris?',
      tools: {
        get_weather: tool({
          description: 'Get the weather in a city.',
          inputSchema: z.object({ city: z.string() }),
          execute: async ({ city }) => { asked.push(city); return { temperature: 18 }; },
        }),
      },
      stopWhen: stepCountIs(3),
      prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? 'required' : 'none' }),
    });
    assert.ok(await result.text);
    assert.equal(asked.length, 1);
    assert.equal(typeof asked[0], 'string');
  });
}
