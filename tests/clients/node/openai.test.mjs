// openai-node, unchanged: chats, streams, its helpers, and its errors.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { zodFunction, zodResponseFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: 'x', maxRetries: 0, timeout: 300_000 });
const greedy = { model: process.env.MODEL, temperature: 0, frequency_penalty: 1 };
const user = (content) => [{ role: 'user', content }];
const Person = z.object({ name: z.string(), age: z.number().int() });

test('a chat', async () => {
  const answer = await client.chat.completions.create({ ...greedy, messages: user('Hello') });
  assert.ok(answer.choices[0].message.content);
  assert.ok(answer.choices[0].message.reasoning_content);
  assert.ok(answer._request_id);
});

test('a stream joined is the answer', async () => {
  const whole = await client.chat.completions.create({ ...greedy, messages: user('What is 2 + 2?') });
  const stream = await client.chat.completions.create({ ...greedy, messages: user('What is 2 + 2?'), stream: true });
  let content = '';
  for await (const chunk of stream) content += chunk.choices[0]?.delta.content ?? '';
  assert.equal(content, whole.choices[0].message.content);
});

test('the stream helper puts the answer together', async () => {
  const stream = client.chat.completions.stream({ ...greedy, messages: user('Hello') });
  let content = '';
  stream.on('content', (delta) => { content += delta; });
  assert.equal(await stream.finalContent(), content);
  assert.ok(content);
});

test('parse fills a schema', async () => {
  const answer = await client.chat.completions.parse({
    ...greedy,
    messages: user('Anna is 23 years old.'),
    response_format: zodResponseFormat(Person, 'person'),
  });
  Person.parse(answer.choices[0].message.parsed);
});

test('a forced call has arguments of its schema', async () => {
  const answer = await client.chat.completions.parse({
    ...greedy,
    messages: user('Create a user: Anna, 23'),
    tools: [zodFunction({ name: 'create_user', parameters: Person })],
    tool_choice: 'required',
  });
  Person.parse(answer.choices[0].message.tool_calls[0].function.parsed_arguments);
});

test('runTools calls the function that it is told to', async () => {
  const asked = [];
  const tool = {
    type: 'function',
    function: {
      name: 'get_weather',
      description: 'Get the weather in a city.',
      parameters: { type: 'object', properties: { city: { type: 'string' } }, required: ['city'] },
      parse: JSON.parse,
      function: ({ city }) => { asked.push(city); return { temperature: 18 }; },
    },
  };
  const messages = user('What is the weather in Paris?');
  const tool_choice = { type: 'function', function: { name: 'get_weather' } };
  const runner = client.chat.completions.runTools({ ...greedy, messages, tools: [tool], tool_choice, stream: true });
  assert.deepEqual(JSON.parse(await runner.finalFunctionToolCallResult()), { temperature: 18 });
  assert.equal(asked.length, 1);
  assert.equal(typeof asked[0], 'string');
});

test('raw completions', async () => {
  const answer = await client.completions.create({ ...greedy, prompt: ['Once upon a time', 'a'], max_tokens: 4 });
  assert.equal(answer.choices.length, 2);
});

test('models', async () => {
  const ids = [];
  for await (const model of client.models.list()) ids.push(model.id);
  assert.deepEqual(ids, [process.env.MODEL]);
});

test('errors are the SDK\'s own', async () => {
  await assert.rejects(client.chat.completions.create({ model: 'nobody', messages: user('Hello') }), OpenAI.NotFoundError);
  await assert.rejects(
    client.chat.completions.create({ ...greedy, messages: user('Hello'), temperature: 3 }),
    (error) => error instanceof OpenAI.BadRequestError && error.param === 'temperature',
  );
});

test('a stream may be left in the middle', async () => {
  const stream = await client.chat.completions.create({ ...greedy, messages: user('Tell me a story.'), stream: true });
  for await (const _ of stream) break;
  const answer = await client.chat.completions.create({ ...greedy, messages: user('Hello') });
  assert.ok(answer.choices[0].message.content);
});
