// @openai/agents: tools, handoffs, and its sessions, here and on the server.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  Agent, MemorySession, OpenAIChatCompletionsModel, OpenAIConversationsSession, OpenAIResponsesModel, run,
  setTracingDisabled, tool,
} from '@openai/agents';
import OpenAI from 'openai';
import { z } from 'zod';

setTracingDisabled(true); // it would be sent to OpenAI
const client = new OpenAI({ baseURL: process.env.BASE_URL, apiKey: 'x', maxRetries: 0, timeout: 300_000 });
const Person = z.object({ name: z.string(), age: z.number().int() });
const SUNNY = 'It is sunny in Paris.';

for (const Model of [OpenAIResponsesModel, OpenAIChatCompletionsModel]) {
  const model = new Model(client, process.env.MODEL);
  const asked = [];
  const weather = new Agent({
    name: 'weather',
    model,
    tools: [tool({
      name: 'get_weather',
      description: 'Get the weather in a city.',
      parameters: z.object({ city: z.string() }),
      execute: async ({ city }) => { asked.push(city); return 'sunny'; },
    })],
  });
  const first = new Agent({ name: 'first', model, handoffs: [weather] });

  test(`one agent hands over to another, which calls a function: ${Model.name}`, async () => {
    asked.length = 0;
    const session = new MemorySession();
    const result = await run(first, 'Weather?', { session });
    assert.equal(result.lastAgent.name, 'weather');
    assert.equal(result.finalOutput, SUNNY);
    assert.deepEqual(asked, ['Paris']);
    const next = await run(weather, 'Thanks', { session });
    assert.equal(next.finalOutput, 'After all that.');
  });

  test(`streamed: ${Model.name}`, async () => {
    asked.length = 0;
    const result = await run(weather, 'Weather?', { stream: true });
    let text = '';
    for await (const piece of result.toTextStream()) text += piece;
    await result.completed;
    assert.equal(text, SUNNY);
    assert.deepEqual(asked, ['Paris']);
  });

  test(`an object as the answer: ${Model.name}`, async () => {
    const result = await run(new Agent({ name: 'person', model, outputType: Person }), 'Who?');
    assert.deepEqual(result.finalOutput, { name: 'Anna', age: 23 });
  });
}

test('a session that the server keeps', async () => {
  const model = new OpenAIResponsesModel(client, process.env.MODEL);
  const session = new OpenAIConversationsSession({ client });
  const agent = new Agent({ name: 'first', model });
  assert.equal((await run(agent, 'Hi', { session })).finalOutput, SUNNY);
  assert.equal((await run(agent, 'Thanks', { session })).finalOutput, 'After all that.');
  const items = await session.getItems();
  assert.deepEqual(items.filter((item) => item.role === 'user').length, 2);
  const popped = await session.popItem();
  assert.equal(popped.role, 'assistant');
  assert.equal((await session.getItems()).length, items.length - 1);
  await session.clearSession();
});
