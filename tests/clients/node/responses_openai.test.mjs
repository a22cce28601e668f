// openai-node over the Responses API: create, stream, parse, background, conversations, errors.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import OpenAI from 'openai';
import { zodResponsesFunction, zodTextFormat } from 'openai/helpers/zod';
import { z } from 'zod';

const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: 'x', maxRetries: 0, timeout: 300_000 });
const model = process.env.MODEL;
const Person = z.object({ name: z.string(), age: z.number().int() });
const weather = zodResponsesFunction({ name: 'get_weather', parameters: z.object({ city: z.string() }) });
const SUNNY = 'It is sunny in Paris.';

async function ended(response) {
  let job = response;
  while (['queued', 'in_progress'].includes(job.status)) {
    await new Promise((resolve) => setTimeout(resolve, 50));
    job = await client.responses.retrieve(job.id);
  }
  return job;
}

test('a response', async () => {
  const response = await client.responses.create({ model, input: 'Hi', reasoning: { summary: 'auto' } });
  assert.equal(response.output_text, SUNNY);
  assert.deepEqual(response.output.map((item) => item.type), ['reasoning', 'message']);
  assert.equal(response.output[0].summary[0].text, 'Sunny.');
  assert.equal(response.output[1].phase, 'final_answer');
  assert.ok(response.usage.output_tokens_details.reasoning_tokens > 0);
  assert.ok(response._request_id);
  const again = await client.responses.retrieve(response.id);
  assert.deepEqual(again.output, response.output);
  await client.responses.delete(response.id);
  await assert.rejects(client.responses.retrieve(response.id), OpenAI.NotFoundError);
});

test('a stream joined is the response', async () => {
  const stream = client.responses.stream({ model, input: 'Hi' });
  let text = '';
  let last = -1;
  for await (const event of stream) {
    assert.equal(event.sequence_number, last + 1);
    last = event.sequence_number;
    if (event.type === 'response.output_text.delta') text += event.delta;
  }
  assert.equal((await stream.finalResponse()).output_text, text);
  assert.equal(text, SUNNY);
});

test('parse fills a schema, and the arguments of a call', async () => {
  const format = zodTextFormat(Person, 'person');
  const person = await client.responses.parse({ model, input: 'Who?', text: { format } });
  assert.deepEqual(person.output_parsed, { name: 'Anna', age: 23 });
  const called = await client.responses.parse({ model, input: 'Weather?', tools: [weather] });
  assert.deepEqual(called.output.at(-1).parsed_arguments, { city: 'Paris' });
});

test('a call, its result, and an answer, by the id of the response before', async () => {
  const first = await client.responses.create({ model, input: 'Weather?', tools: [weather] });
  const { call_id } = first.output.at(-1);
  const input = [{ type: 'function_call_output', call_id, output: 'sunny' }];
  const second = await client.responses.create({ model, input, tools: [weather], previous_response_id: first.id });
  assert.equal(second.output_text, SUNNY);
  const asked = await client.responses.inputItems.list(second.id);
  assert.deepEqual(asked.data.map((item) => item.type), ['function_call_output']);
});

test('in the background, polled, and streamed again from the middle', async () => {
  const job = await client.responses.create({ model, input: 'Hi', background: true });
  assert.ok(['queued', 'in_progress', 'completed'].includes(job.status));
  assert.equal((await ended(job)).output_text, SUNNY);
  const events = [];
  for await (const event of await client.responses.create({ model, input: 'Hi', background: true, stream: true })) {
    events.push(event);
  }
  const { id } = events[0].response;
  const rest = [];
  for await (const event of await client.responses.retrieve(id, { stream: true, starting_after: 3 })) rest.push(event);
  assert.deepEqual(rest, events.slice(4));
  assert.equal((await client.responses.cancel(id)).status, 'completed');
});

test('a conversation remembers what was said in it', async () => {
  const conversation = await client.conversations.create({ metadata: { a: 'b' } });
  for (const input of ['One', 'Two']) await client.responses.create({ model, input, conversation: conversation.id });
  const kinds = [];
  for await (const item of client.conversations.items.list(conversation.id, { order: 'asc', limit: 4 })) {
    kinds.push(item.type);
  }
  assert.deepEqual(kinds, ['message', 'reasoning', 'message', 'message', 'reasoning', 'message']);
  await client.conversations.delete(conversation.id);
  await assert.rejects(client.conversations.retrieve(conversation.id), OpenAI.NotFoundError);
});

test('the tokens of a prompt are counted', async () => {
  const counted = await client.responses.inputTokens.count({ model, input: 'Hi' });
  const response = await client.responses.create({ model, input: 'Hi', max_output_tokens: 20 });
  assert.equal(counted.input_tokens, response.usage.input_tokens);
});

test('errors are the SDK\'s own', async () => {
  await assert.rejects(client.responses.create({ model: 'nobody', input: 'Hi' }), OpenAI.NotFoundError);
  await assert.rejects(
    client.responses.create({ model, input: 'word '.repeat(200_000) }),
    (error) => error instanceof OpenAI.BadRequestError && error.code === 'context_length_exceeded',
  );
});
